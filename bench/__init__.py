"""What the service costs, beside a peer. Run by hand: figures are a machine's, and no test fails on them."""
