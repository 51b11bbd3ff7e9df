"use strict";

// "Try it out" asks the service that serves this page, not the server that the contract names.
const askThisService = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (update) => (document) => {
          const servers = (document.servers || []).map(({ url }) => ({ url: new URL(url, location).pathname }));
          return update({ ...document, servers });
        },
      },
    },
  },
});

SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: "/openapi.yaml",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: true,
  plugins: [askThisService],
  validatorUrl: null,
});
