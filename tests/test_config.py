"""Impossible configurations are refused with one line."""

import pytest

from smpvm.config import Config, ConfigError, DiskConfig, Sysctl, parse_sysctl
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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("nonesuch", 1, "sysctl nonesuch: unknown; known are"),
        ("max_launder", "32", "sysctl max_launder: '32' is not a whole number, allowed 0 to"),
        ("max_launder", 3.0, "3.0 is not a whole number"),
        ("swap_enabled", True, "True is not a whole number"),
        ("swap_enabled", None, "None is not a whole number"),
        ("swap_enabled", -1, "-1 is out of range, allowed 0 to 1"),
    ],
)
def test_a_sysctl_that_cannot_be_is_refused_from_python(
    name: str, value: object, said: str
) -> None:
    config = Config()
    with pytest.raises(ConfigError, match=said):
        setattr(config.sysctl, name, value)
    with pytest.raises(ConfigError, match=said):
        config.with_sysctl(**{name: value})
    if name != "nonesuch":
        with pytest.raises(ConfigError, match=said):
            Sysctl(**{name: value})  # type: ignore[arg-type]
    assert config == Config()


def test_what_is_no_sysctl_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no Sysctl"):
        Config(sysctl={"max_launder": 1})  # type: ignore[arg-type]


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
