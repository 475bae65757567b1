"""The units for systemd: held against systemd's own tools where they are, and the calendar against cron's firings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbook.errors import UsageError
from runbook.planfile.cron import parse_cron
from runbook.snapshots.schedule import render, systemd
from runbook.snapshots.schedule.systemd import calendar, word
from tests.unit.schedule_kit import S3, Json, backup

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze, which judges units, is not here"
)
SERVICE, TIMER = "runbook-snapshot-prod-eu1.service", "runbook-snapshot-prod-eu1.timer"


@pytest.mark.parametrize(
    ("cron", "lines"),
    [
        ("0 * * * *", ["*-*-* *:00:00 UTC"]),
        ("0 */6 * * *", ["*-*-* 00,06,12,18:00:00 UTC"]),
        ("0 2 * * *", ["*-*-* 02:00:00 UTC"]),
        ("*/20 8-10 * * mon-fri", ["Mon,Tue,Wed,Thu,Fri *-*-* 08,09,10:00,20,40:00 UTC"]),
        ("30 6 1,15 jan *", ["*-01-01,15 06:30:00 UTC"]),
        ("0 0 1 * sun", ["*-*-01 00:00:00 UTC", "Sun *-*-* 00:00:00 UTC"]),
        ("0 0 1-31 * sun", ["*-*-* 00:00:00 UTC", "Sun *-*-* 00:00:00 UTC"]),
    ],
)
def test_cron_in_systemds_words(cron: str, lines: list[str]) -> None:
    assert calendar(parse_cron(cron)) == lines


@needs_systemd
@pytest.mark.parametrize(
    "cron",
    [
        "0 * * * *",
        "0 */6 * * *",
        "7-59/11 */5 * * *",
        "*/20 8-10 * * mon-fri",
        "0 0 13 * fri",
        "30 6 29 feb *",
        "0 12 */9 3-11/2 *",
        "0 12 */9 * */3",
        "0 0 *,3 * sat",
    ],
)
def test_the_same_moments(cron: str) -> None:
    """What systemd computes of the lines is when cron fires."""
    start = datetime(2026, 4, 9, 14, 0, tzinfo=UTC)
    found: set[str] = set()
    for line in calendar(parse_cron(cron)):
        asked = ["systemd-analyze", "calendar", "--iterations=20", "--base-time=2026-04-09 14:00:00 UTC", line]
        said = subprocess.run(asked, capture_output=True, text=True, check=True, env={"TZ": "UTC"}).stdout
        found |= set(re.findall(r"(?:elapse|#\d+): \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d):00 UTC", said))
    it = parse_cron(cron)
    midnights = (datetime.fromordinal(day).replace(tzinfo=UTC) for day in it.dates(2026, 2110))
    fires = [m + timedelta(minutes=n) for m in midnights for n in it.times]
    after = [at.strftime("%Y-%m-%d %H:%M") for at in fires if at > start]
    assert sorted(found)[:20] == after[:20]


@needs_systemd
@pytest.mark.parametrize("store", [None, {"url": "file:///tmp"}])
def test_systemd_takes_the_units(tmp_path: Path, store: Json | None) -> None:
    plan = backup(tmp_path, metrics="/tmp", store=store or S3)
    for name, text in systemd(plan, Path(sys.executable)).items():
        (tmp_path / name).write_text(text)
    verify = ["systemd-analyze", "verify", "--man=no", str(tmp_path / SERVICE), str(tmp_path / TIMER)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_says_no_to_a_wrong_one(tmp_path: Path) -> None:
    """Or the test above says nothing."""
    text = systemd(backup(tmp_path), Path(sys.executable))[SERVICE]
    (tmp_path / SERVICE).write_text(text.replace("ProtectSystem=strict", "ProtectSystem=always"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / SERVICE)], capture_output=True, text=True, check=False
    )
    assert "Failed to parse" in done.stderr


def test_what_the_service_may_write(tmp_path: Path) -> None:
    assert "ReadWritePaths=" not in systemd(backup(tmp_path))[SERVICE]
    plan = backup(tmp_path, store={"url": "file:///mnt/two%20words"}, metrics="/var/lib/metrics")
    assert 'ReadWritePaths="/mnt/two words" /var/lib/metrics\n' in systemd(plan)[SERVICE]


def test_what_it_starts(tmp_path: Path) -> None:
    """Absolute, and nothing in a path is a variable or a specifier to systemd."""
    odd = tmp_path / "100% $HOME"
    odd.mkdir()
    text = systemd(backup(odd, schedule={"deadline": "45m"}), Path("/opt/runbook/bin/runbook"))[SERVICE]
    assert f'ExecStart=/opt/runbook/bin/runbook snapshot save "{tmp_path}/100%% $$HOME/backup.yaml"\n' in text
    assert "TimeoutStartSec=2700s\n" in text
    assert "EnvironmentFile=-/etc/runbook/prod-eu1.env\n" in text


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("/a/b-c_d.e", "/a/b-c_d.e"), ("a b", '"a b"'), ('a"b\\c', '"a\\"b\\\\c"'), ("50%", '"50%%"'), ("$x", '"$x"')],
)
def test_words_of_a_unit_file(text: str, quoted: str) -> None:
    assert word(text) == quoted


def test_a_timer_makes_up_for_what_it_missed(tmp_path: Path) -> None:
    text = systemd(backup(tmp_path, schedule={"cron": "0 0 1 * sun"}))[TIMER]
    assert text.count("OnCalendar=") == 2
    assert "Persistent=true\n" in text
    assert "RandomizedDelaySec=300s\nFixedRandomDelay=true\n" in text
    often = systemd(backup(tmp_path, schedule={"cron": "*/10 * * * *", "deadline": "5m"}))[TIMER]
    assert "RandomizedDelaySec=60s\n" in often


def test_a_node_of_the_cluster_may_be_the_store(tmp_path: Path) -> None:
    """Over SSH that is no trouble, and no image is needed."""
    plan = backup(tmp_path, store={"url": "host://m1/backups"}, schedule={"image": "", "etcdImage": ""})
    text = render(plan, "systemd", program=Path("/opt/runbook"))
    assert f"# ---- /etc/systemd/system/{SERVICE}\n" in text
    assert f"# ---- /etc/systemd/system/{TIMER}\n" in text
    assert "ExecStart=/opt/runbook snapshot save" in text


def test_a_schedule_that_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"spec\.schedule\.deadline"):
        systemd(backup(tmp_path, schedule={"cron": "*/10 * * * *"}))
