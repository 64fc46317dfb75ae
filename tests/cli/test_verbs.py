"""What all verbs share: forms of answers, exit codes, keys, pages."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cluster.cli import exits
from cluster.cli.batch import commands_in
from cluster.cli.verbs import payload
from cluster.errors import ConnectionLost, CoterieError, NoLeader, Overloaded, Refused, Timeout
from tests.cli.machine import Shell, serving
from tests.cli.running import coterie, finish, seen_at
from tests.client.small_server import SmallServer


class Terminal:
    """What asks whether it is one is told so."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell with a session, before a machine."""
    with serving() as endpoint:
        made = Shell(endpoint, tmp_path)
        made.line("export COTERIE_SESSION=$(coterie sessions open -o name)")
        yield made


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("coterie locks acquire orders", "--session"),
        ("coterie locks release orders --session s", "--token"),
        ("coterie semaphores set printers", "--limit"),
        ("coterie rooms set sale --window-size 1", "--window-interval"),
    ],
)
def test_an_option_that_is_missing_is_named_before_anybody_is_asked(
    tmp_path: Path, line: str, option: str
) -> None:
    """Exit code 2, also where no cluster is."""
    ran = Shell("127.0.0.1:1", tmp_path).line(line)
    assert ran.code == 2
    assert f"Missing option '{option}'" in ran.err


async def test_who_looks_at_a_terminal_is_told_that_an_answer_takes_long() -> None:
    """And then has it: that was no error."""
    told = asyncio.Event()

    async def gate(path: str) -> None:
        await told.wait()

    ours, theirs = pty.openpty()
    try:
        async with SmallServer() as server:
            server.gate = gate
            words = ("sessions", "open", "-o", "name", "--endpoints", server.endpoint)
            async with coterie(*words, stderr=theirs) as process:
                await seen_at(ours, b"coterie sessions open: no answer yet; it is tried for 10 s")
                told.set()
                out, _ = await process.communicate()
        assert (process.returncode, out) == (0, b"1-s\n")
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (ConnectionLost("a: [SSL: CERTIFICATE_VERIFY_FAILED] unable to get"), "Name the authority"),
        (ConnectionLost("a: Hostname mismatch, certificate is not valid for 'a'"), "Use the name"),
        (ConnectionLost("a: [SSL: WRONG_VERSION_NUMBER] wrong version"), "No TLS is spoken there"),
        (ConnectionLost("a: Server disconnected"), "Is that the API of a node"),
        (Refused("a answered 404", code="http_404", status=404, reason={}), "Is that the API"),
        (ConnectionLost("a: connection refused"), "Which nodes answer, and who leads: coterie st"),
        (NoLeader("nobody leads"), "Which nodes answer"),
        (Overloaded("the queue is full"), None),
        (Refused("held", code="lock_held", status=409, reason={}), None),
    ],
)
def test_what_was_asked_wrongly_is_told_with_its_cure(
    error: CoterieError, cure: str | None
) -> None:
    """In a line of its own, for people; programs are told the code."""
    first, *more = exits.told(error, "table", who="coterie locks list").split("\n")
    assert first.endswith(error.detail)
    assert [line.startswith(cure or "-") for line in more] == ([True] if cure else [])
    assert json.loads(exits.told(error, "json", who="coterie"))["detail"] == error.detail


class TestForms:
    """How an answer looks."""

    def test_a_pipe_gets_fields_with_tabs(self, shell: Shell) -> None:
        """Without heads, unless a table was asked for."""
        shell.line("coterie locks acquire orders")
        name, mode, holders, queue, token = shell.line("coterie locks list").out.strip().split("\t")
        assert (name, mode, holders, queue) == ("orders", "exclusive", "1", "0")
        assert token.isdecimal()
        shown = shell.line("coterie locks list -o table").out.splitlines()
        assert shown[0].split("  ")[0] == "NAME"
        assert len(shown) == 2

    def test_json_and_yaml_say_what_the_api_says(self, shell: Shell) -> None:
        """The same value, in either."""
        shell.line("coterie locks acquire orders")
        as_json = json.loads(shell.line("coterie locks show orders -o json").out)
        as_yaml = yaml.safe_load(shell.line("coterie locks show orders -o yaml").out)
        assert as_json == as_yaml
        assert as_json["holders"][0]["session"] == shell.variables["COTERIE_SESSION"]

    def test_one_thing_is_shown_in_detail(self, shell: Shell) -> None:
        """Its fields one a line, its lists below: as tables, or as lines for a pipe."""
        shell.line("coterie locks acquire orders")
        shown = shell.line("coterie locks show orders -o table").out
        assert "name:           orders\n" in shown
        assert "\nholders:\nSESSION" in shown
        piped = shell.line("coterie locks show orders").out.splitlines()
        assert piped[0] == "name\torders"
        assert piped[-1].startswith("holders\tsession=")

    def test_colours_are_for_terminals_that_want_them(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """NO_COLOR is respected."""
        monkeypatch.setattr("cluster.cli.rendering.sys", SimpleNamespace(stdout=Terminal()))
        assert "\x1b[1mNAME" in shell.run("locks", "list", terminal=True).out
        shell.variables["NO_COLOR"] = "1"
        assert "\x1b" not in shell.run("locks", "list", terminal=True).out
        ran = shell.run("locks", "acquire", "x", "--session", "0-a", terminal=True)
        assert (ran.code, "\x1b" in ran.err) == (3, False)

    def test_what_is_no_text_is_written_as_base64(self, shell: Shell) -> None:
        """Both ways; control characters are spelt out."""
        assert payload(b"\x00\xff") == {"base64": "AP8="}
        assert payload("\udcff") == {"base64": "/w=="}
        shell.run("jobs", "put", "raw", stdin=b"\x00\xff")
        shell.run("jobs", "put", "raw", "a\x1b[31mb")
        assert shell.run("jobs", "reserve", "raw", "--limit", "2").out.split("\t")[2] == (
            "base64:AP8="
        )
        assert "a\\x1b[31mb" in shell.run("jobs", "show", "2").out

    def test_a_long_list_comes_whole(self, shell: Shell) -> None:
        """All pages of it; with --limit that one only, and where it goes on."""
        for number in range(120):
            shell.run("semaphores", "set", f"s{number:03}", "--limit", "1")
        assert len(shell.line("coterie semaphores list -o name").out.split()) == 120
        assert len(json.loads(shell.line("coterie semaphores list -o json").out)["semaphores"]) == (
            120
        )
        shown = shell.line("coterie semaphores list --limit 2 -o table").out
        assert shown.splitlines()[-1] == "… more behind s001"


class TestExitCodes:
    """What a script learns."""

    def test_a_refusal_ends_with_1_and_its_reason(self, shell: Shell) -> None:
        """In words, or as JSON for programs."""
        shell.line("OTHER=$(coterie sessions open -o name)")
        shell.line("coterie locks acquire orders --session $OTHER")
        ran = shell.line("coterie locks acquire orders")
        assert (ran.code, ran.out) == (1, "")
        assert f"held by session {shell.variables['OTHER']}" in ran.err
        ran = shell.line("coterie locks acquire orders -o json")
        told = json.loads(ran.err)
        assert (ran.code, told["code"], told["holder"]) == (
            1,
            "lock_held",
            shell.variables["OTHER"],
        )

    def test_an_answer_that_is_a_no_ends_with_1(self, shell: Shell) -> None:
        """A token that is stale, a tube without jobs, a batch that was refused in part."""
        ran = shell.line("coterie locks check orders --token 99 -o json")
        assert (ran.code, json.loads(ran.out)["valid"]) == (1, False)
        assert shell.line("coterie jobs reserve mail").code == 1
        line = 'POST /v1/locks/x/release {"session": "0-a", "token": 1}'
        assert shell.run("batch", "-", stdin=line.encode()).code == 1

    def test_what_is_not_there_ends_with_3(self, shell: Shell) -> None:
        """And so does what is gone."""
        assert shell.line("coterie jobs show 77").code == 3
        assert shell.line("coterie sessions show 0-nobody").code == 3
        shell.line("coterie sessions close $COTERIE_SESSION")
        assert shell.line("coterie locks acquire orders").code == 3

    def test_nonsense_ends_with_2(self, shell: Shell) -> None:
        """Whoever finds it: we, or the node."""
        for line in (
            "coterie locks acquire",
            "coterie sessions open --ttl soon",
            "coterie sessions open --ttl 1ms",
            "coterie tasks put reports",
            "coterie tasks finish reports weekly",
            "coterie batch nowhere",
            "coterie sessions open --meta nothing",
        ):
            assert shell.line(line).code == 2, line

    def test_out_of_reach_ends_with_4(self, tmp_path: Path) -> None:
        """Nothing has happened, nowhere."""
        with serving() as endpoint:
            pass
        ran = Shell(endpoint, tmp_path).line("coterie locks list --timeout 100ms")
        assert (ran.code, ran.out) == (4, "")

    async def test_what_may_have_happened_ends_with_5_and_its_key(self) -> None:
        """The answer was lost: the same key makes a repeat harmless. A lost read did nothing."""

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            more = ("--endpoints", f"{host}:{port}", "--timeout", "100ms", "-o", "json")
            code, out, err = await finish("jobs", "put", "mail", "x", "--key", "mine", *more)
            told = json.loads(err)
            assert (code, out, told["definite"], told["key"]) == (5, "", False, "mine")
            code, _, err = await finish("jobs", "show", "1", *more)
            assert (code, "key" in json.loads(err)) == (4, False)

    @pytest.mark.parametrize(
        ("error", "code", "of_a_read"),
        [
            (Refused("", code="x", status=409, reason={}), 1, 1),
            (Refused("", code="x", status=422, reason={}), 1, 1),
            (Refused("", code="x", status=400, reason={}), 2, 2),
            (Refused("", code="x", status=410, reason={}), 3, 3),
            (Refused("", code="x", status=429, reason={}), 4, 4),
            (Overloaded(""), 4, 4),
            (NoLeader(""), 4, 4),
            (NoLeader("", definite=False), 5, 4),
            (Timeout(""), 5, 4),
            (ConnectionLost(""), 5, 4),
        ],
    )
    def test_each_failure_has_its_code(self, error: Refused, code: int, of_a_read: int) -> None:
        """A read that was lost has done nothing."""
        assert exits.code_of(error) == code
        assert exits.code_of(error, is_read=True) == of_a_read

    def test_what_may_have_happened_is_told_with_its_key(self) -> None:
        """So that it can be asked again."""
        assert "--key abc" in exits.told(Timeout("late"), "table", who="coterie x", key="abc")
        assert json.loads(exits.told(Timeout("late"), "json", who="", key="abc"))["key"] == "abc"
        assert "--key" not in exits.told(NoLeader("no"), "table", who="coterie x", key="abc")


class TestAsking:
    """What is sent."""

    def test_a_key_of_ones_own_makes_a_repeat_harmless(self, shell: Shell) -> None:
        """Also over several jobs at once, each with its part of the key."""
        for _ in range(2):
            ran = shell.line("coterie jobs put mail one two --key mine -o name")
            assert ran.out.split() == ["1", "2"]
        ran = shell.line("coterie jobs put mail other --key mine:0")
        assert (ran.code, "mine" in ran.err or "key" in ran.err) == (1, True)

    def test_what_was_done_before_a_failure_is_shown(self, shell: Shell) -> None:
        """The jobs that were kicked, and then the reason."""
        shell.line("coterie jobs put mail one two --delay 1h")
        ran = shell.line("coterie jobs kick 1 99 2 -o name")
        assert (ran.code, ran.out) == (3, "1\n")

    def test_lock_with_a_verb_is_locks(self, shell: Shell) -> None:
        """Unless a command follows: then it is the name of a lock."""
        assert shell.line("coterie lock acquire orders -o name").out.strip().isdecimal()
        assert shell.run("lock", "list", "--", "true").code == 0
        assert shell.run("locks", "run", "list", "--", "true").code == 0
        assert (
            shell.line("coterie session list -o name").out.strip()
            == (shell.variables["COTERIE_SESSION"])
        )

    def test_files_and_lines_are_bodies(self, shell: Shell, tmp_path: Path) -> None:
        """Each file one, each line one; - among the arguments is the standard input."""
        (tmp_path / "a.txt").write_text("from a file\n")
        assert shell.line("coterie jobs put t --file a.txt -o name").out == "1\n"
        ran = shell.run("jobs", "put", "t", "x", "-", "y", "--lines", "-o", "name", stdin=b"p\nq\n")
        assert ran.out.split() == ["2", "3", "4", "5"]
        ran = shell.run("jobs", "reserve", "t", "--limit", "9", "-o", "json")
        bodies = [job["body"] for job in json.loads(ran.out)["jobs"]]
        assert bodies == ["from a file\n", "x", "p", "q", "y"]
        assert shell.line("coterie jobs put t x --file a.txt").code == 2


def test_commands_of_a_batch_come_as_json_or_as_lines() -> None:
    """A line that is neither is named."""
    command = {"call": "DELETE /v1/jobs/7"}
    assert commands_in(json.dumps([command])) == [command]
    assert commands_in(json.dumps({"commands": [command]})) == [command]
    assert commands_in(f"# two\n\nDELETE  /v1/jobs/7\n{json.dumps(command)}\n") == [command] * 2
    assert commands_in('PUT /v1/x {"limit": 3}') == [{"call": "PUT /v1/x", "body": {"limit": 3}}]
    for text in ("DELETE", '{"limit": 3}\n{"limit": 3}', "PUT /v1/x {3}"):
        with pytest.raises(ValueError, match="line 1"):
            commands_in(text)


class TestCompletion:
    """What a shell is told."""

    @pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
    def test_each_shell_gets_its_script(self, kind: str, tmp_path: Path) -> None:
        """It calls us back by an environment variable."""
        ran = Shell("127.0.0.1:1", tmp_path).run("completion", kind)
        assert (ran.code, "_COTERIE_COMPLETE" in ran.out) == (0, True)

    def test_fish_is_told_all_of_a_name_with_a_comma(self, tmp_path: Path) -> None:
        """Kind and value are parted at the first comma, and at no other."""
        script = Shell("127.0.0.1:1", tmp_path).run("completion", "fish").out
        assert 'string split --max 1 "," $completion' in script

    def test_bash_takes_its_script(self, tmp_path: Path) -> None:
        """It completes the word by calling a command called coterie."""
        script = Shell("127.0.0.1:1", tmp_path).run("completion", "bash").out
        done = subprocess.run(
            ["bash", "-c", f"{script}\ncomplete -p coterie"], capture_output=True, check=True
        )
        assert done.stdout.decode().endswith(" coterie\n")

    def test_names_are_completed_from_the_live_cluster(self, shell: Shell) -> None:
        """Commands, verbs, options and choices too; a cluster that is away completes nothing."""
        shell.line("coterie locks acquire orders")
        shell.line("coterie locks acquire other")

        def complete(*words: str) -> set[str]:
            line = " ".join(("coterie", *words))
            environ = {
                "_COTERIE_COMPLETE": "bash_complete",
                "COMP_WORDS": line,
                "COMP_CWORD": str(len(words)),
            }
            shell.variables |= environ
            return {each.partition(",")[2] for each in shell.run().out.split("\n") if each}

        assert complete("locks", "show", "ord") == {"orders"}
        assert complete("locks", "acquire", "o") == {"orders", "other"}
        assert shell.variables["COTERIE_SESSION"] in complete("sessions", "close", '""')
        assert "acquire" in complete("locks", "acq")
        shell.endpoint = "127.0.0.1:1"
        assert complete("locks", "show", "ord") == set()
