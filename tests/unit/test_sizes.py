"""A size is told in a unit in which a small snapshot is not nothing."""

from __future__ import annotations

import pytest

from runbook.checks.words import size, so_far


@pytest.mark.parametrize(
    ("octets", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (20_512, "20 KiB"),
        (2**20 - 1, "1 MiB"),
        (2**20, "1 MiB"),
        (500 << 20, "500 MiB"),
        (2**30 - 1, "1.0 GiB"),
        (5 << 29, "2.5 GiB"),
        (-2048, "-2 KiB"),
    ],
)
def test_a_size(octets: int, told: str) -> None:
    assert size(octets) == told


@pytest.mark.parametrize(
    ("came", "whole", "told"),
    [
        (100, 900, "100 of 900 B"),
        (900, 900, "all 900 B"),
        (4 << 10, 20_512, "4 of 20 KiB"),
        (20_512, 20_512, "all 20 KiB"),
        (1000, 500 << 20, "0 of 500 MiB"),
        (120 << 20, 500 << 20, "120 of 500 MiB"),
        (700 << 20, 2 << 30, "700 of 2048 MiB"),
        (2 << 30, 2 << 30, "all 2048 MiB"),
    ],
)
def test_how_much_of_it_has_come(came: int, whole: int, told: str) -> None:
    assert so_far(came, whole) == told
