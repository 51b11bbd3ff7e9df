"""The External OMS Config API: one switch for each retailer, served from the customer's contract.

    asgi           reads the environment and builds the application; the only import with an effect
    factory        connects the parts, and is the place to begin reading
    cli            the command `oms-config`
    settings       what the service was told
    store_factory  which store the settings name
    operations     what it does
    feed           what it tells those who listen
    store          what it remembers
    auth           who is asking
    model          what passes between them
    errors         what can go wrong
    logs           how its lines look
    metrics        how its numbers are kept
    web            all the HTTP there is
    server         the web process: uvicorn, its limits and its graceful shutdown
    preflight      checks of a store before a release
    dev            what only development needs

A request comes from uvicorn (`web.protocol`) through `web.request_id`, `web.outcomes` and `web.failures` to
Connexion (routing, security, validation), on through Flask to an operation and the store, and back. All of it happens
on the event loop: nothing may block. Imports go down only: development; server, asgi, cli; factory, stopping; then
storage, release, signing; then settings, operations, web, listener; then feed, auth; then store; then metrics, model,
errors.
"""
