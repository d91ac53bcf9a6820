"""Configurations that no machine can have are refused with one line."""

import pytest

from smpvm.config import Config, ConfigError, DiskConfig, parse_sysctl
from smpvm.workload.kinds import KINDS
from smpvm.workload.profiles import PROFILES, find


@pytest.mark.parametrize(
    "changes",
    [
        {"pq_l2_size": 3},
        {"pq_l2_size": 512},
        {"pages": 1},
        {"swap_pages": -1},
        {"ncpus": 0},
        {"spin_pool": 0},
        {"tick_scale": 0.0},
        {"swap_disk": DiskConfig(error_rate=1.5)},
        {"file_disk": DiskConfig(queue_depth=0)},
    ],
)
def test_what_is_out_of_range_is_named(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as why:
        Config(**changes)  # type: ignore[arg-type]
    assert next(iter(changes)) in str(why.value)
    assert "\n" not in str(why.value)


def test_sysctls_are_parsed_and_checked() -> None:
    assert parse_sysctl("vm.max_launder=32") == ("max_launder", 32)
    assert parse_sysctl("pageout_algorithm=0x1") == ("pageout_algorithm", 1)
    for text, said in {
        "max_launder": "name=value",
        "nonesuch=1": "unknown",
        "max_launder=many": "whole number",
        "swap_enabled=7": "out of range",
    }.items():
        with pytest.raises(ConfigError, match=said):
            parse_sysctl(text)


def test_a_copy_with_other_sysctls_leaves_the_first_alone() -> None:
    config = Config()
    assert config.with_sysctl(max_launder=5).sysctl.max_launder == 5
    assert config.sysctl.max_launder == 4096


def test_every_profile_makes_a_machine_of_known_processes() -> None:
    for profile in PROFILES.values():
        profile.machine()
        for task in profile.mix:
            assert task.kind in KINDS, (profile.name, task.kind)


def test_what_the_user_asks_for_goes_before_the_profile() -> None:
    config = find("tiny-pool").machine(pages=2048, ncpus=None, sysctl={"max_launder": 9})
    assert config.pages == 2048
    assert config.spin_pool == 1
    assert config.sysctl.max_launder == 9
    with pytest.raises(ConfigError, match="thrash"):
        find("nonesuch")
