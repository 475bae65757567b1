"""The command line of the system's ``ssh``: what it is told, and when it is not asked."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.hosts.address import Address
from runbook.hosts.client import command_line

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHxfsGZbC3kTqdt5Vq1Wm2qXg0NEkC6oJmC3L3Q0q0Xa"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and an ``ssh`` that is only looked for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text("")
    (tmp_path / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.fixture
def there(home: Path) -> Address:
    """A host that ``ssh`` may be asked for."""
    (home / "known hosts").write_text(f"10.0.0.1 {KEY}\nm9 {KEY}\n[10.0.0.1]:2222 {KEY}\n")
    (home / "id").write_text("")
    return Address("m1", "10.0.0.1", identity_file=str(home / "id"), known_hosts_file=str(home / "known hosts"))


def told(address: Address) -> list[str]:
    words = command_line(address)
    assert words is not None
    return words


def test_it_is_told_everything_and_reads_no_configuration(there: Address, home: Path) -> None:
    words = told(there)
    assert words[:3] == [str(home / "bin/ssh"), "-F", "/dev/null"]
    assert words[-2:] == ["--", "10.0.0.1"]
    assert words[words.index("-p") + 1] == "22"
    assert words[words.index("-l") + 1] == "root"
    for option in (
        'BatchMode="yes"',
        'StrictHostKeyChecking="yes"',
        f'UserKnownHostsFile="{home}/known hosts"',
        'GlobalKnownHostsFile="/dev/null"',
        'HostKeyAlgorithms="ssh-ed25519"',
        f'IdentityFile="{home}/id"',
        'IdentitiesOnly="yes"',
        'ConnectTimeout="10"',
    ):
        assert words[words.index(option) - 1] == "-o"
    assert not any("HostKeyAlias" in word for word in words)
    assert 'IdentitiesOnly="no"' in told(replace(there, identity_file=None)), "the agent's keys"


def test_the_real_ssh_understands_it(there: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    words = command_line(there)
    if words is None:
        pytest.skip("no ssh on this machine")
    seen = subprocess.run([words[0], "-G", *words[1:]], capture_output=True, text=True, check=True).stdout.splitlines()
    for line in (
        f"userknownhostsfile {there.known_hosts_file}",
        "stricthostkeychecking true",
        "hostkeyalgorithms ssh-ed25519",
        f"identityfile {there.identity_file}",
        "serveraliveinterval 2",
        "escapechar none",
        "forwardagent no",
    ):
        assert line in seen
    ciphers = next(line for line in seen if line.startswith("ciphers "))
    assert ciphers.startswith("ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,")
    assert len(ciphers.split(",")) > 2, "and the others, for a server that has none of them"


def test_what_the_users_configuration_says_of_the_host(there: Address, home: Path) -> None:
    (home / "other").write_text("")
    (home / ".ssh/config").write_text(
        f"Host behind\n HostName 10.0.0.9\n Port 2222\n User eve\n HostKeyAlias m9\n IdentityFile {home}/other\n"
        " StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n"
    )
    words = told(replace(there, host="behind", user=None, port=None))
    assert (words[-1], words[words.index("-p") + 1], words[words.index("-l") + 1]) == ("10.0.0.9", "2222", "eve")
    assert 'HostKeyAlias="m9"' in words
    keys = [word for word in words if word.startswith("IdentityFile=")]
    assert keys == [f'IdentityFile="{home}/id"', f'IdentityFile="{home}/other"'], "the plan's first"
    assert 'StrictHostKeyChecking="yes"' in words


@pytest.mark.parametrize("way", ["ProxyJump m2", "ProxyCommand nc %h %p"])
def test_a_detour_is_not_for_it(there: Address, home: Path, way: str) -> None:
    (home / ".ssh/config").write_text(f"Host *\n {way}\n")
    assert command_line(there) is None
    assert command_line(replace(there, jump="")) is not None, "the plan says: straight"
    (home / ".ssh/config").unlink()
    assert command_line(replace(there, jump="root@m2")) is None


def test_when_it_is_not_asked(there: Address, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = home / "100%d"
    odd.write_text((home / "known hosts").read_text())
    assert command_line(replace(there, known_hosts_file=str(odd))) is None, "ssh would put a home there"
    assert command_line(replace(there, known_hosts_file=str(home / "none"))) is None
    assert command_line(replace(there, identity_file=str(home / "none"))) is None
    (home / "known hosts").write_text(f"-oProxyCommand=x {KEY}\n")
    assert command_line(replace(there, host="-oProxyCommand=x")) is None
    (home / ".ssh/config").write_text("Match nonsense\n")
    assert command_line(there) is None
    (home / ".ssh/config").unlink()
    (home / "known hosts").write_text(f"10.0.0.1 {KEY}\n")
    assert command_line(there) is not None
    monkeypatch.setenv("PATH", str(home))
    assert command_line(there) is None
