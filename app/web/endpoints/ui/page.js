import { accessibility, improveElements } from "./accessibility.js";
import { eventStreams } from "./event_stream.js";

// The path under which a proxy serves the service, without a slash at the end: usually empty.
const prefix = new URL("../..", location).pathname.slice(0, -1);

// "Try it out" sends requests to the service that serves this page, not to the server in the contract. The relative links
// of the contract lead to it too.
const useThisService = (document) => ({
  ...JSON.parse(JSON.stringify(document).replaceAll("](/docs/", `](${prefix}/docs/`)),
  servers: (document.servers || []).map(({ url }) => ({ url: prefix + new URL(url, location).pathname })),
});

// One token is valid for every document, and Swagger UI stores it under the name of the security scheme. Therefore the
// bearer scheme of each document gets the name that it has in the contract.
const useOneTokenForAll = (document) => {
  const copy = structuredClone(document);
  const schemes = (copy.components || {}).securitySchemes || {};
  const renamed = (named) =>
    Object.fromEntries(
      Object.entries(named).map(([name, value]) => [
        (schemes[name] || {}).scheme === "bearer" ? "newStoreAccessToken" : name,
        value,
      ]),
    );
  const operations = Object.values(copy.paths || {}).flatMap((path) => Object.values(path));
  for (const each of [copy, ...operations]) {
    if (each.security) {
      each.security = each.security.map(renamed);
    }
  }
  if (copy.components) {
    copy.components.securitySchemes = renamed(schemes);
  }
  return copy;
};

const adaptDocuments = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (update) => (document) => update(useOneTokenForAll(useThisService(document))),
      },
    },
  },
});

// Tokens are often copied together with the name of the scheme, which Swagger UI would send twice.
const acceptBearer = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        authorize: (authorize) => (entries) =>
          authorize(
            Object.fromEntries(
              Object.entries(entries).map(([name, entry]) => [
                name,
                typeof entry.value === "string"
                  ? { ...entry, value: entry.value.trim().replace(/^Bearer\s+/i, "") }
                  : entry,
              ]),
            ),
          ),
      },
    },
  },
});

// Removes an old answer when "Execute" is pressed or another document is chosen, so that it is not mistaken for a new one.
const clearAnswers = ({ React: { createElement } }) => ({
  statePlugins: {
    spec: {
      wrapActions: {
        // Swagger UI keeps answers by path and method, and two documents may have the same.
        updateJsonSpec: (update, { specSelectors, specActions }) => (document) => {
          specSelectors.responses().forEach((methods, path) => {
            methods.forEach((_answer, method) => specActions.clearResponse(path, method));
          });
          return update(document);
        },
        validateParams:
          (validate, { specActions }) =>
          (operation, ...more) => {
            specActions.clearResponse(...operation);
            return validate(operation, ...more);
          },
      },
    },
  },
  wrapComponents: {
    // Swagger UI shows its spinner until the answer changes, so this must start after the answer was removed.
    execute: (Execute) => (props) =>
      createElement(Execute, { ...props, onExecute: () => queueMicrotask(props.onExecute) }),
  },
});

// Shows UI_NOTE as plain text above the button "Authorize".
const showNote = ({ React: { createElement, Fragment }, getConfigs }) => ({
  wrapComponents: {
    InfoContainer: (Info) => (props) => {
      const { note } = getConfigs();
      const shown = note && createElement("p", { className: "note" }, note);
      return createElement(Fragment, null, createElement(Info, props), shown);
    },
  },
});

improveElements(document.body);
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  configUrl: "page.json",
  deepLinking: true,
  displayRequestDuration: true,
  layout: "StandaloneLayout",
  persistAuthorization: true,
  plugins: [adaptDocuments, acceptBearer, clearAnswers, showNote, eventStreams, ...accessibility],
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  queryConfigEnabled: false, // no link can make the page load a foreign document
  // The document selector writes its choice into the query of the page's URL. Only our own documents can be chosen.
  "urls.primaryName": new URLSearchParams(location.search).get("urls.primaryName"),
  validatorUrl: null, // do not send the documents to validator.swagger.io
});
