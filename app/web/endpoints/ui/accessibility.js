// Makes Swagger UI usable with a keyboard and a screen reader.

// Attributes that elements of Swagger UI lack or, for null, must not have. A function gets the element.
export const ATTRIBUTES = {
  ".info .title": { "aria-level": "1" },
  ".opblock-tag, .models h4": { "aria-level": "2" },
  ".opblock h4": { "aria-level": "3" },
  ".opblock h5": { "aria-level": "4" },
  ".modal-ux h3": { "aria-level": "2" },
  ".modal-ux h4": { "aria-level": "3" },
  ".modal-ux h6": { "aria-level": "4" },
  "#select": { "aria-label": "Select a definition" }, // the label is hidden on a phone
  ".servers select": { "aria-label": "Server" },
  ".opblock-summary-control": { "aria-label": null }, // the method, the path and the summary are a better name
  ".opblock-summary .copy-to-clipboard": { role: "button", tabindex: "0", "aria-label": "Copy the path" },
  "[data-param-name] input": { "aria-label": (input) => input.closest("tr").dataset.paramName },
  ".body-param__text": { "aria-label": "Request body" },
  ".model-toggle": { role: "img", "aria-label": "Properties" }, // the content of a button
  ".responses-table": { role: null, "aria-live": null }, // "region" hides that this is a table
  ".live-responses-table pre, .curl": { tabindex: "0" }, // these may scroll
  ".copy-to-clipboard > button": { "aria-label": "Copy" },
  ".download-contents": { role: "button", tabindex: "0" },
  ".close-modal": { "aria-label": "Close the dialog" },
  ".auth-container input": { "aria-label": "Value" },
};

const setAttributes = () => {
  for (const [selector, attributes] of Object.entries(ATTRIBUTES)) {
    for (const element of document.querySelectorAll(selector)) {
      for (const [name, value] of Object.entries(attributes)) {
        if (value === null) {
          element.removeAttribute(name);
        } else {
          element.setAttribute(name, typeof value === "function" ? value(element) : value);
        }
      }
    }
  }
};

/** Set the attributes above whenever Swagger UI has added elements, and let keys press the buttons among them. */
export const improveElements = (root) => {
  new MutationObserver(setAttributes).observe(root, { childList: true, subtree: true });
  root.addEventListener("keydown", (event) => {
    if (event.target.matches("div[role=button]") && ["Enter", " "].includes(event.key)) {
      event.preventDefault(); // the space key would scroll
      const pressed = event.target.firstElementChild || event.target;
      pressed.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    }
  });
};

const announce = (text) => {
  document.getElementById("announcement").textContent = text;
};

/** Tell a screen reader that an answer has arrived. */
const announceAnswers = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        setRequest: (set) => (path, method, request) => {
          announce(""); // an equal text is not read again
          return set(path, method, request);
        },
        setResponse: (set) => (path, method, response) => {
          announce(`Response: ${(response.err || response).status || "no answer"}`);
          return set(path, method, response);
        },
      },
    },
  },
});

/** The dialog "Available authorizations" as a modal `<dialog>`: it keeps the focus, Escape closes it, and the focus returns. */
const modalDialog = ({ React: { createElement, useLayoutEffect, useRef } }) => ({
  wrapComponents: {
    authorizationPopup: (Popup) => (props) => {
      const element = useRef();
      useLayoutEffect(() => {
        const dialog = element.current;
        dialog.showModal();
        (dialog.querySelector("input") || dialog.querySelector("button")).focus();
        return () => dialog.close();
      }, []);
      const hide = () => props.authActions.showDefinitions(false);
      const attributes = { ref: element, onClose: hide, "aria-label": "Available authorizations" };
      return createElement("dialog", attributes, createElement(Popup, props));
    },
  },
});

/** No links inside of the buttons that open operations. They would be a second control for the same. */
const plainSummaries = ({ React: { createElement } }) => ({
  components: { DeepLink: ({ text }) => createElement("span", null, text) },
});

export const accessibility = [announceAnswers, modalDialog, plainSummaries];
