"""The External OMS Config API: one setting for each tenant, served from the customer's OpenAPI document.

    asgi           ASGI entry point; the only module that does something when it is imported
    factory        builds the application from its parts; start reading here
    server         the web process: uvicorn, its limits and its graceful shutdown
    web            HTTP: middleware, adapters to Connexion and Flask, endpoints
    operations     the coroutine of each operationId
    feed           change events for the subscribers of one worker
    store          settings and their history in Redis
    store_factory  builds the store that the settings name
    auth           verifies tokens and fetches the keys of identity providers
    settings       environment variables, read into a frozen object
    cli            the command `oms-config`
    preflight      checks of a store before a release
    dev            development only: `bin/serve` and its tokens
    model          frozen values that the parts exchange
    errors         exceptions, without HTTP statuses
    logs           logging configuration
    metrics        the Prometheus registry
    tracing        OpenTelemetry, if the process uses it
    version        the version of this release

A request passes `server`, then the middleware, routing, security, validation and Flask in `web`, then `operations` and
the `store`. Everything runs on the event loop, so nothing may block. The command uses the client for Python programs:
`external_oms_config`, a package next to `app`, which imports nothing of it.

Imports only point down this list: asgi; server, factory, cli; web; operations, store_factory, preflight, dev; settings,
feed; auth, store; logs, metrics, tracing, model, errors; version;
external_oms_config.
"""
