"""Acknowledged writes and event streams when a primary is cut off and the network is healed.

Each scenario runs once, with workers of different settings next to each other. The tests check what it left. None of
them depends on how long something took: a cut lasts until every worker does what its place demands.
"""

import pytest

from tests.partitions.network import has_ip, reason_not_to_run
from tests.partitions.scenarios import ANY, Place, Result, Run, partition_cluster, partition_sentinels
from tests.processes import skip_locally

Results = dict[str, Result]
SCENARIOS = ("sentinels", "refusing_servers", "shards")


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> None:
    if reason := reason_not_to_run():
        if not has_ip():
            skip_locally(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return partition_sentinels(tmp_path_factory.mktemp("sentinels"), Run(clients=1))


@pytest.fixture(scope="module")
def refusing_servers(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return partition_sentinels(
        tmp_path_factory.mktemp("refusing"),
        Run(clients=1),
        places=(Place("cut off, any", "old", ANY, demand="stops"), Place("survivors", "new")),
        options=(("min-replicas-to-write", "1"), ("min-replicas-max-lag", "2")),
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return partition_cluster(tmp_path_factory.mktemp("shards"), Run(clients=1))


@pytest.fixture(params=SCENARIOS)
def results(request: pytest.FixtureRequest) -> Results:
    found: Results = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("quorum", ["majority", "any"])
def test_newest_failover_is_followed_despite_a_sentinel_with_an_older_one(sentinels: Results, quorum: str) -> None:
    result = sentinels[f"reaches both, {quorum}"]
    assert result.is_steady
    assert result.figures.relapses == 0


def test_worker_without_a_majority_of_sentinels_reads_but_stops_writing(sentinels: Results) -> None:
    result = sentinels["cut off, majority"]
    assert result.is_steady
    assert result.figures.acknowledged_when_steady == 0
    assert result.figures.reads_when_steady > 0


def test_one_sentinel_suffices_for_writes_if_quorum_is_any(sentinels: Results) -> None:
    result = sentinels["cut off, any"]
    assert result.is_steady
    assert result.figures.lost > 0


@pytest.mark.parametrize(
    "place", ["cut off, any, 1 replica", "reaches both, majority, 1 replica", "survivors, 1 replica"]
)
def test_no_acknowledged_write_is_lost_with_required_replicas(sentinels: Results, place: str) -> None:
    result = sentinels[place]
    assert result.is_steady
    assert result.figures.lost == 0


def test_cut_off_primary_with_min_replicas_to_write_stops_writing(refusing_servers: Results) -> None:
    result = refusing_servers["cut off, any"]
    assert result.is_steady
    assert result.figures.acknowledged_when_steady == 0
    assert result.figures.reads_when_steady > 0


def test_cut_off_primary_of_a_shard_stops_writing(shards: Results) -> None:
    result = shards["cut off"]
    assert result.is_steady
    assert result.figures.acknowledged_when_steady == 0


def test_no_acknowledged_write_of_a_shard_is_lost_with_required_replicas(shards: Results) -> None:
    assert shards["cut off, 1 replica"].figures.lost == 0


def test_survivors_never_return_to_the_old_primary(results: Results) -> None:
    result = results["survivors"]
    assert result.is_steady
    assert result.figures.relapses == 0


def test_event_streams_of_all_workers_agree_with_the_survivors_at_last(results: Results) -> None:
    for result in results.values():
        assert (result.figures.stale_streams, result.figures.kept_changes) == (0, 0), result.place.name


def test_no_worker_logs_a_traceback(results: Results) -> None:
    for result in results.values():
        assert "Traceback" not in result.log, result.place.name
