"""The list of tenants, while the slots of a cluster move."""

from pathlib import Path

from app.store.redis_store import RedisStore
from app.store.redis_url import Address
from app.store.tenant_scan import _SeenNames
from app.store.topology import connect
from tests.conftest import Run
from tests.topologies import Cluster, Node, cluster
from tests.waiting import PATIENCE

VALUE = '{"enabled":true,"version":1,"at":0,"by":null,"request":"r","id":"i"}'


def move(nodes: Cluster, tenant: str, target: Node) -> None:
    source = nodes.owner(tenant)
    nodes.begin_move(tenant, target)
    nodes.move_key(f"external_oms:{{{tenant}}}", source, target)
    nodes.end_move(tenant, target)


def test_tenant_whose_slot_moves_during_the_list_is_yielded_once(run: Run, tmp_path: Path) -> None:
    """Nodes are scanned in the order of their ports. One tenant moves past the scan, another one ahead of it."""

    async def list_all(nodes: Cluster) -> list[str]:
        first, _, last = sorted(nodes.nodes, key=lambda node: node.port)
        (ahead,), (behind,) = nodes.tenants_of(first, 1), nodes.tenants_of(last, 1)
        for tenant in (ahead, behind):
            nodes.owner(tenant).ask("SET", f"external_oms:{{{tenant}}}", VALUE)
        store = RedisStore(connect(Address.parse(nodes.url)), PATIENCE, history_length=1)
        yielded: list[str] = []
        try:
            async for page in store.tenants("*"):
                yielded += page.changes
                if yielded == [ahead] and nodes.owner(behind) is last:
                    move(nodes, ahead, last)
                    move(nodes, behind, first)
        finally:
            await store.close()
        assert nodes.owner(behind) is first
        return yielded

    with cluster(tmp_path) as nodes:
        ahead, behind = run(list_all(nodes))
    assert ahead != behind


def test_set_of_names_finds_exactly_those_that_were_added() -> None:
    seen, names = _SeenNames(), [f"tenant-{number}" for number in range(50_000)]
    assert all(seen.add(name) for name in names)
    assert not any(seen.add(name) for name in names)
    assert seen.add("another")
