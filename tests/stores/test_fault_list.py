"""What can go wrong around a store: which test proves the answer on which place, or why none."""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest
from stores.places import KINDS, params


class Fault(NamedTuple):
    what: str
    #: `file::test`, for the test of that name in test_file.py.
    proven: tuple[str, ...]
    #: Why it is not proven on the other places. A sentence that begins with `not tested` names a
    #: gap, and the page of the guarantees has it; any other says that it cannot happen there.
    without: dict[str, str] = {}


NO_SERVER = dict.fromkeys(("memory", "file", "sqlite"), "there is no server, and no wire to it")
CLUSTER = "not tested: the scripts and the client are those of valkey, without six relays"
PROCESS = {"memory": "it ends with its process"}
NO_DISK = {"memory": "nothing is on a disk", "memcached": "nothing is on a disk"}
LOSES_A_PRIMARY = (
    "redis_cluster::test_a_cluster_under_load_that_loses_a_primary_answers_nothing_wrong"
)
FROZEN_PRIMARY = (
    "redis_cluster::test_a_frozen_primary_costs_its_own_sessions_the_deadline_and_others_nothing"
)

FAULTS = {
    "F01": Fault(
        "down at the start",
        (
            "faults::test_a_server_that_is_down_at_the_start_is_503_until_it_is_there",
            "redis_cluster::test_no_node_that_answers_is_an_error",
            "file::test_a_data_dir_that_is_a_file_is_a_store_error",
            "sqlalchemy::test_a_folder_that_is_not_there_is_a_store_error",
        ),
        {"memory": "there is no server"},
    ),
    "F02": Fault(
        "dies between load and save",
        (
            "faults::test_a_server_that_dies_under_a_request_is_503_and_heals",
            "postgres::test_a_server_killed_before_a_save_keeps_the_old_record",
            LOSES_A_PRIMARY,
        ),
        NO_SERVER,
    ),
    "F03": Fault(
        "the answer to a save is lost",
        (
            "faults::test_an_answer_that_gets_lost_never_counts_twice",
            "faults::test_an_answer_to_a_save_that_gets_lost_leaves_the_old_record_or_the_new",
        ),
        {**NO_SERVER, "cluster": CLUSTER},
    ),
    "F04": Fault(
        "slow",
        (
            "faults::test_a_slow_wire_costs_time_and_no_more_trips",
            "faults::test_a_wire_that_is_too_slow_is_503_within_the_deadline",
        ),
        {**NO_SERVER, "cluster": CLUSTER},
    ),
    "F04b": Fault(
        "one failure, then healthy",
        ("faults::test_one_failure_on_the_wire_costs_neither_the_id_nor_the_data", LOSES_A_PRIMARY),
        NO_SERVER,
    ),
    "F05": Fault(
        "frozen",
        (
            "faults::test_a_frozen_server_is_503_within_the_deadline_and_disturbs_nobody_else",
            FROZEN_PRIMARY,
            "file::test_a_lock_that_another_process_holds_is_a_timeout",
            "sqlalchemy::test_a_file_that_somebody_holds_is_a_timeout_within_the_deadline",
        ),
        {"memory": "there is no server"},
    ),
    "F06": Fault(
        "a restart of what is durable",
        (
            "faults::test_a_restart_costs_at_most_one_request_and_durable_sessions_go_on",
            LOSES_A_PRIMARY,
        ),
        NO_SERVER,
    ),
    "F07": Fault(
        "a restart of what is not",
        (
            "faults::test_a_restart_costs_at_most_one_request_and_durable_sessions_go_on",
            "redis::test_after_a_restart_that_forgets_sessions_are_unknown",
            "memory::test_another_process_sees_nothing",
        ),
        {
            "file": "it is durable",
            "sqlite": "it is durable",
            "cluster": "not tested: a cluster of which every node forgets at once",
        },
    ),
    "F08": Fault(
        "a record is evicted",
        ("faults::test_a_record_that_is_evicted_under_a_request_is_409_and_not_made_again",),
    ),
    "F09": Fault(
        "a fail-over",
        (LOSES_A_PRIMARY,),
        {
            **dict.fromkeys(
                ("memory", "file", "sqlite", "memcached"), "no replica takes its place"
            ),
            "postgres": "not tested: the promotion of a standby",
            "valkey": "a server alone has no replica",
        },
    ),
    "F10": Fault(
        "out of memory",
        (
            "redis::test_a_full_server_refuses_writes_reads_on_and_forgets",
            "memcached::test_with_a_full_memory_that_may_not_evict_reads_and_ends_go_on",
            "memory::test_past_the_cap_the_longest_idle_makes_room",
        ),
        {
            **dict.fromkeys(("file", "sqlite", "postgres"), "it is the disk that fills: F11"),
            "cluster": "not tested: the scripts are those of valkey",
        },
    ),
    "F11": Fault(
        "a full disk",
        (
            "file::test_a_full_disk_keeps_the_old_record_and_the_store_goes_on",
            "sqlalchemy::test_a_full_disk_keeps_the_old_record_and_the_store_goes_on",
        ),
        {
            **NO_DISK,
            "postgres": "not tested: a server on a full disk needs a file system of its own",
            "valkey": "not tested: a server on a full disk needs a file system of its own",
            "cluster": "not tested: a server on a full disk needs a file system of its own",
        },
    ),
    "F12": Fault(
        "a write that is cut short",
        (
            "faults::test_a_write_that_the_system_cuts_short_is_503_and_keeps_the_old_record",
            "file::test_a_write_that_the_system_cuts_short_keeps_the_old_record",
        ),
        {**NO_DISK, **dict.fromkeys(("postgres", "valkey", "cluster"), "the server's own matter")},
    ),
    "F13": Fault(
        "no inode left",
        (),
        {
            **NO_DISK,
            **dict.fromkeys(("postgres", "valkey", "cluster"), "the server's own matter"),
            "file": "not tested: it needs a file system of its own",
            "sqlite": "not tested: it needs a file system of its own",
        },
    ),
    "F14": Fault(
        "permission denied",
        (
            "faults::test_a_folder_that_forbids_is_503_and_never_an_empty_session",
            "file::test_a_folder_that_forbids_is_a_store_error",
            "postgres::test_a_wrong_password_is_a_store_error_without_it",
            "postgres::test_who_may_only_read_reads_and_a_write_is_a_store_error",
            "redis::test_a_password",
        ),
        {
            "memory": "nobody is asked",
            "memcached": "nobody is asked",
            "cluster": "not tested: the scripts and the client are those of valkey",
        },
    ),
    "F15": Fault(
        "read only",
        (
            "faults::test_where_nothing_can_be_written_reads_go_on_and_saves_are_503",
            "postgres::test_a_standby_is_read_and_a_write_is_a_store_error",
            "redis::test_a_primary_that_became_a_replica_is_an_error_and_heals",
        ),
        {
            **NO_DISK,
            "cluster": "a replica sends the client to its primary",
        },
    ),
    "F16": Fault(
        "corrupted bytes",
        (
            "secrecy::test_every_flipped_bit_is_noticed",
            "file::test_a_corrupted_record_costs_that_session_only",
            "sqlalchemy::test_a_corrupted_record_is_kept_and_says_so",
            "postgres::test_a_corrupted_record_is_kept_and_says_so",
            "redis::test_what_is_not_a_record_is_corrupted_and_is_kept",
            "memcached::test_what_cannot_be_read_costs_that_session_only_and_is_kept",
        ),
    ),
    "F17": Fault(
        "a record of a newer version",
        (
            "file::test_a_newer_versions_file_is_refused_and_left_as_it_is",
            "sqlalchemy::test_a_record_of_a_newer_version_is_not_written_to",
            "postgres::test_a_record_of_a_newer_version_is_not_written_to",
            "redis::test_what_is_not_a_record_is_corrupted_and_is_kept",
            "memcached::test_what_cannot_be_read_costs_that_session_only_and_is_kept",
        ),
        {
            "memory": "what is in it was written by this process",
            "cluster": "not tested: the scripts are those of valkey",
        },
    ),
    "F18": Fault(
        "a planted pickle",
        (
            "secrecy::test_a_planted_pickle_does_not_run",
            "secrecy::test_a_planted_pickle_does_not_run_where_there_is_no_secret",
        ),
    ),
    "F19": Fault(
        "values and records swapped",
        (
            "secrecy::test_a_value_from_another_session_or_field_is_refused",
            "secrecy::test_a_record_from_another_session_is_refused",
        ),
    ),
    "F20": Fault(
        "a clock that jumps a day ahead, and back",
        ("faults::test_a_clock_that_jumps_a_day_ahead_and_back_revives_nothing",),
    ),
    "F21": Fault(
        "a clock that jumps a day back",
        ("faults::test_a_clock_that_jumps_a_day_back_gives_no_longer_life",),
    ),
    "F22": Fault(
        "clocks that differ by 30 seconds",
        ("faults::test_workers_whose_clocks_differ_by_30_seconds_agree",),
        {"memory": "one process has one clock"},
    ),
    "F23": Fault(
        "SIGKILL during a save",
        ("kills::test_a_writer_killed_at_any_moment_tears_nothing_and_loses_nothing",),
        PROCESS,
    ),
    "F24": Fault(
        "SIGKILL while holding a lease",
        (),
        dict.fromkeys(KINDS, "no lease is ever held: writes are conditional"),
    ),
    "F25": Fault(
        "a graceful stop",
        ("faults::test_a_graceful_stop_under_load_loses_no_acknowledged_save",),
        PROCESS,
    ),
    "F27": Fault(
        "a fork after the store was opened",
        (
            "faults::test_children_of_a_fork_share_no_connection",
            "memory::test_a_fork_while_another_thread_holds_the_lock_leaves_the_child_able_to_work",
            "foreign_forks::test_children_of_a_bare_fork_and_their_parent_read_no_foreign_session",
        ),
    ),
    "F28": Fault("64 threads", ("faults::test_64_threads_see_each_its_own_session",)),
    "F29": Fault("200 greenlets", ("faults::test_200_greenlets_see_each_their_own_session",)),
    "F31": Fault(
        "a request that breaks off",
        (
            "faults::test_a_request_that_breaks_off_saves_nothing_half_and_holds_nothing",
            "faults::test_a_client_that_hangs_up_in_the_middle_leaves_a_whole_session",
        ),
    ),
    "F34": Fault(
        "50 first requests after the end",
        ("faults::test_50_requests_after_the_end_each_get_a_session_of_their_own",),
    ),
    "F35": Fault(
        "a rotation under load",
        ("faults::test_a_login_under_load_leaves_one_id_and_loses_nothing",),
    ),
    "F36": Fault(
        "a sweep under load",
        ("faults::test_a_sweep_under_load_takes_no_living_session",),
        dict.fromkeys(("valkey", "cluster", "memcached"), "the server removes what has expired"),
    ),
    "F37": Fault("32 writers on one key", ("faults::test_32_writers_on_one_key_all_finish",)),
    "F38": Fault(
        "a finder that fails",
        (
            "../flow::test_a_finder_that_raises_costs_the_id_and_no_more",
            "../flow::test_a_finder_that_returns_junk_costs_the_id_and_no_more",
        ),
    ),
    "F39": Fault(
        "an id that is in use",
        ("faults::test_an_id_that_is_in_use_is_drawn_again_and_never_overwritten",),
    ),
    "F40": Fault(
        "no entropy", ("faults::test_without_entropy_there_is_no_session_and_the_old_ones_go_on",)
    ),
    "F41": Fault(
        "an old secret removed",
        ("secrecy::test_after_a_change_of_configuration_sessions_go_on_or_are_kept",),
    ),
    "F42": Fault(
        "several ids in one request",
        ("../flow::test_several_different_ids_in_one_carrier_count_as_none",),
    ),
    "F43": Fault(
        "a value that cannot be serialised",
        ("faults::test_a_value_that_cannot_be_serialised_is_named_and_changes_nothing",),
    ),
    "F44": Fault(
        "odd keys and values",
        (
            "faults::test_an_odd_value_comes_back_as_it_was_or_is_refused",
            "faults::test_an_odd_key_comes_back_as_it_was_or_is_refused",
        ),
    ),
    # WSGI has no responses of 1xx.
    "F45": Fault(
        "HEAD, OPTIONS, 304, 204, prefetches",
        (
            "../pylons_page::test_a_cache_above_learns_no_id_from_a_304",
            "../methods::test_a_304_begins_no_session",
            "../methods::test_a_304_to_a_known_visitor_saves_and_tells_nothing",
            "../methods::test_a_response_without_a_body_tells_the_id_and_is_not_stored",
            "../methods::test_options_that_need_no_session_cost_nothing_and_tell_nothing",
            "../methods::test_a_head_request_begins_and_renews_nothing",
            "../refusals::test_a_request_that_nobody_made_on_purpose_renews_no_session",
            "../refusals::test_what_a_browser_fetches_ahead_renews_a_session",
        ),
    ),
}

LISTED = [
    *(f"F{number:02}" for number in range(1, 20)),
    *("F04b", "F20", "F21", "F22", "F23", "F24", "F25", "F27", "F28", "F29", "F31"),
    *(f"F{number}" for number in range(34, 46)),
]

HERE = Path(__file__).resolve().parent

#: The places that a store's own test file is about.
OWN = {
    "memory": {"memory"},
    "file": {"file"},
    "sqlalchemy": {"sqlite"},
    "postgres": {"postgres"},
    "redis": {"valkey"},
    "redis_cluster": {"cluster"},
    "memcached": {"memcached"},
}


def where_it_runs(test):
    """The places on which *test* runs. Raises if there is no such test."""
    folder, slash, rest = test.rpartition("/")
    file, _, name = rest.partition("::")
    tree = ast.parse((HERE / folder / f"test_{file}.py").read_text("utf-8"))
    [function] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    if slash:  # it is about what happens before any store is asked
        return set(KINDS)
    if file in OWN:
        return OWN[file]
    [powers] = [
        [ast.literal_eval(power) for power in decorator.args]
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "places"
    ]
    return {param.values[0] for param in params(*powers)}


@pytest.mark.parametrize("fault", LISTED)
def test_every_fault_is_proven_on_every_place_or_it_says_why_not(fault):
    _, proven, without = FAULTS[fault]
    there = set().union(*map(where_it_runs, proven))
    assert there | without.keys() == set(KINDS)


def test_no_fault_is_proven_that_nobody_listed():
    assert FAULTS.keys() == set(LISTED)


def test_what_is_not_tested_is_on_the_page():
    page = (HERE.parent.parent / "docs" / "stores" / "guarantees.md").read_text("utf-8")
    said = page.partition("## What is not tested")[2].partition("\n## ")[0]
    gaps = {
        (number, place)
        for number, fault in FAULTS.items()
        for place, why in fault.without.items()
        if why.startswith("not tested")
    }
    assert {
        (line.split("|")[1].strip(), place.strip())
        for line in said.splitlines()
        if line.startswith("| F")
        for place in line.split("|")[3].split(",")
    } == gaps
