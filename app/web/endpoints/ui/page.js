"use strict";

// "Try it out" asks the service that serves this page, not the server that the contract names.
const askThisService = (document) => ({
  ...document,
  servers: (document.servers || []).map(({ url }) => ({ url: new URL(url, location).pathname })),
});

// One token is good for every document, and Swagger UI keeps it by the name of a document's scheme: each document's
// bearer scheme gets the name that the contract has for it.
const authorizeOnceForAll = (document) => {
  const own = structuredClone(document);
  const schemes = (own.components || {}).securitySchemes || {};
  const renamed = (named) =>
    Object.fromEntries(
      Object.entries(named).map(([name, value]) => [
        (schemes[name] || {}).scheme === "bearer" ? "newStoreAccessToken" : name,
        value,
      ]),
    );
  const operations = Object.values(own.paths || {}).flatMap((path) => Object.values(path));
  for (const each of [own, ...operations]) {
    if (each.security) {
      each.security = each.security.map(renamed);
    }
  }
  if (own.components) {
    own.components.securitySchemes = renamed(schemes);
  }
  return own;
};

const adaptDocuments = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (update) => (document) => update(authorizeOnceForAll(askThisService(document))),
      },
    },
  },
});

// The settings' note, as text, above the button that it is about.
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
  queryConfigEnabled: false, // no address makes the page load a stranger's document
  // The selector writes its choice into the address, and this reads it there; it can only be one of our documents.
  "urls.primaryName": new URLSearchParams(location.search).get("urls.primaryName"),
  validatorUrl: null, // asks nobody else what they think of the documents
});
