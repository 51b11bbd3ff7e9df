"use strict";

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

SwaggerUIBundle({
  dom_id: "#swagger-ui",
  configUrl: "page.json",
  deepLinking: true,
  displayRequestDuration: true,
  layout: "StandaloneLayout",
  persistAuthorization: true,
  plugins: [adaptDocuments, showNote],
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  queryConfigEnabled: false, // no link can make the page load a foreign document
  // The document selector writes its choice into the query of the page's URL. Only our own documents can be chosen.
  "urls.primaryName": new URLSearchParams(location.search).get("urls.primaryName"),
  validatorUrl: null, // do not send the documents to validator.swagger.io
});
