"""Settings: precedence, origins, parsers, and that every mistake names its cure."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.node import config
from cluster.node.config import Address, ConfigError, load

LEAST = {"node": "n1", "data": "/var/lib/coterie"}
SECRET = "twenty characters ok"


def problems_of(flags: dict[str, object], environ: dict[str, str] | None = None) -> str:
    """All problems of bad settings as one text."""
    with pytest.raises(ConfigError) as caught:
        load(LEAST | flags, environ or {})
    return "\n".join(caught.value.problems)


def write(folder: Path, text: str) -> Path:
    """A TOML file with this text."""
    file = folder / "coterie.toml"
    file.write_text(text, encoding="utf-8")
    return file


class TestSources:
    """Flag, environment, file, default, in that order."""

    def test_a_flag_beats_the_environment_which_beats_the_file(self, tmp_path: Path) -> None:
        """Each source shows where the nearer ones are silent, and its origin is kept."""
        file = write(tmp_path, 'http = "127.0.0.1:1"\nlisten = "127.0.0.1:2"\ncluster = "file"')
        environ = {"COTERIE_HTTP": "127.0.0.1:3", "COTERIE_LISTEN": "127.0.0.1:4"}

        found = load(LEAST | {"http": "127.0.0.1:5"}, environ, file=file)

        assert (found.http.port, found.listen.port, found.cluster) == (5, 4, "file")
        assert str(found.origins["http"]) == "flag --http"
        assert str(found.origins["listen"]) == "environment COTERIE_LISTEN"
        assert str(found.origins["cluster"]) == f"file {file}"
        assert str(found.origins["heartbeat_ms"]) == "default"

    def test_the_environment_may_name_the_file(self, tmp_path: Path) -> None:
        """COTERIE_CONFIG is the file where no flag names one."""
        file = write(tmp_path, 'cluster = "named"')
        assert load(LEAST, {"COTERIE_CONFIG": str(file)}).cluster == "named"

    def test_an_empty_variable_counts_as_not_set(self) -> None:
        """Compose files pass variables that are empty."""
        assert load(LEAST, {"COTERIE_CLUSTER": ""}).cluster == "coterie"

    def test_flags_that_were_not_given_are_passed_over(self) -> None:
        """None and an empty tuple are what click hands over for absent flags."""
        found = load(LEAST | {"http": None, "peers": ()}, {"COTERIE_PEERS": "n2=localhost:9"})
        assert found.peers == {"n2": Address("localhost", 9)}

    def test_a_missing_file_is_a_problem_with_its_name(self, tmp_path: Path) -> None:
        """A file that was named has to be there."""
        with pytest.raises(ConfigError, match=r"absent\.toml.*cannot be read"):
            load(LEAST, {}, file=tmp_path / "absent.toml")

    def test_a_broken_file_is_a_problem_with_its_line(self, tmp_path: Path) -> None:
        """The TOML parser's own position is passed on."""
        with pytest.raises(ConfigError, match=r"is no TOML.*line 2"):
            load(LEAST, {}, file=write(tmp_path, 'cluster = "a"\nhttp = oops'))

    def test_an_unknown_key_is_refused_with_the_likely_one(self, tmp_path: Path) -> None:
        """A misspelt key in the file stops the start instead of being ignored."""
        with pytest.raises(ConfigError, match=r"hearbeat_ms .*did you mean heartbeat_ms"):
            load(LEAST, {}, file=write(tmp_path, "hearbeat_ms = 5"))

    def test_a_misspelt_variable_is_warned_of(self) -> None:
        """The environment may hold anything, so that a near miss is only a warning."""
        found = load(LEAST, {"COTERIE_HEARBEAT_MS": "5", "COTERIE_SERVICE_HOST": "10.0.0.1"})
        assert found.warnings == (
            "COTERIE_HEARBEAT_MS is no setting and was ignored; did you mean COTERIE_HEARTBEAT_MS?",
        )

    def test_paths_in_a_file_are_counted_from_its_folder(self, tmp_path: Path) -> None:
        """So a folder with its configuration can be moved; flags stay as they are."""
        file = write(tmp_path, 'node = "n1"\ndata = "n1"')
        assert load({}, {}, file=file).data == tmp_path / "n1"
        assert load({"data": "here"}, {}, file=file).data == Path("here")


class TestMistakes:
    """A bad value names itself, its origin and the cure, and all are named at once."""

    def test_all_mistakes_are_named_at_once(self) -> None:
        """The operator repairs everything in one go."""
        with pytest.raises(ConfigError) as caught:
            load({"http": "nonsense"}, {"COTERIE_HEARTBEAT_MS": "5 parsecs"})
        assert len(caught.value.problems) == 4
        assert str(caught.value).startswith("4 settings are wrong:\n  node: missing")

    @pytest.mark.parametrize(
        ("key", "raw", "said"),
        [
            ("node", "a b", "is no name"),
            ("node", "", "is no name"),
            ("http", "localhost", "has no port"),
            ("http", "::1:7101", "without brackets"),
            ("http", "h:99999", "between 0 and 65535"),
            ("http", ":7101", "no usable host"),
            ("http", 7101, "is no address"),
            ("peers", "n2", 'without "="'),
            ("peers", "n2=h:1,n2=h:2", "named twice"),
            ("peers", "n2=0.0.0.0:1", "cannot be dialled"),
            ("peers", "n2=h:0", "cannot be dialled"),
            ("peers", 5, "no list of peers"),
            ("data", " ", "is no path"),
            ("heartbeat_ms", True, "is no duration"),
            ("heartbeat_ms", 1.5, "is no duration"),
            ("heartbeat_ms", "500us", "finer than a millisecond"),
            ("heartbeat_ms", "-1s", "is no duration"),
            ("heartbeat_ms", -1, "is negative"),
            ("heartbeat_ms", "5ms", "use 10 to 10000 ms"),
            ("election_min_ms", "100ms", "less than three heartbeats"),
            ("election_max_ms", "401ms", "too near to election_min_ms"),
            ("segment_bytes", "64 parsecs", "is no size"),
            ("segment_bytes", -1, "is negative"),
            ("segment_bytes", "1", "use 4096 to"),
            ("snapshot_entries", "many", "is no whole number"),
            ("snapshot_entries", True, "is no whole number"),
            ("log_format", "xml", "use one of auto, console, json"),
            ("advertise_http", "ftp://h", "is no URL"),
            ("advertise_http", "http://h/path", "is no URL"),
            ("front_sync_strict", "maybe", "use on or off"),
            ("front_postgres_columns", "data text", "needs a column id"),
            ("front_postgres_columns", "id bigint, id text", "each name once"),
            ("front_postgres_columns", "id money", '"id money" that cannot be'),
            ("front_postgres_columns", 7, "no list of columns"),
        ],
    )
    def test_a_bad_value_names_key_origin_and_cure(self, key: str, raw: object, said: str) -> None:
        """The sentence begins with the key and contains where the value came from."""
        text = problems_of({key: raw})
        assert text.startswith(f"{key}: ")
        assert said in text
        assert f"(flag --{key.replace('_', '-')})" in text

    def test_a_bad_secret_is_not_shown(self) -> None:
        """Neither in the problem nor in the value's representation."""
        assert "hush" not in problems_of({}, {"COTERIE_SECRET": "hush"})
        assert SECRET not in repr(load(LEAST, {"COTERIE_SECRET": SECRET}))


class TestSecret:
    """What nodes prove to each other, and when none is fine."""

    def test_no_secret_is_fine_on_the_loopback_only(self) -> None:
        """There it is derived, with a warning as soon as there are peers."""
        assert load(LEAST, {}).warnings == ()
        found = load(LEAST | {"peers": "n2=127.0.0.1:1,n3=[::1]:2"}, {})
        assert found.secret
        assert "any user of this machine" in found.warnings[0]

    @pytest.mark.parametrize("flags", [{"listen": "0.0.0.0:1"}, {"peers": "n2=b:1,n3=c:1"}])
    def test_no_secret_is_refused_on_a_network(self, flags: dict[str, object]) -> None:
        """An address that others can reach needs a secret."""
        assert "give secret_file (or COTERIE_SECRET)" in problems_of(flags)

    def test_a_secret_comes_from_a_file(self, tmp_path: Path) -> None:
        """White space round it does not count; an open file mode is warned of."""
        path = tmp_path / "secret"
        path.write_text(f"  {SECRET}\n", encoding="utf-8")
        path.chmod(0o600)
        found = load(LEAST | {"secret_file": str(path)}, {})
        assert (found.secret, found.warnings) == (SECRET, ())

        path.chmod(0o644)
        assert "chmod 600" in load(LEAST | {"secret_file": str(path)}, {}).warnings[0]

    def test_a_missing_secret_file_comes_with_a_recipe(self, tmp_path: Path) -> None:
        """The problem says how to make one."""
        text = problems_of({"secret_file": str(tmp_path / "none")})
        assert "/dev/urandom" in text

    def test_a_short_secret_is_refused(self, tmp_path: Path) -> None:
        """Sixteen characters at least."""
        path = tmp_path / "secret"
        path.write_text("short", encoding="utf-8")
        assert "has 5 characters" in problems_of({"secret_file": str(path)})

    def test_the_nearer_of_secret_and_secret_file_wins(self, tmp_path: Path) -> None:
        """An environment variable overrides what the file names; two of one rank are refused."""
        file = write(tmp_path, 'secret_file = "absent"')
        assert load(LEAST, {"COTERIE_SECRET": SECRET}, file=file).secret == SECRET
        both = {"COTERIE_SECRET": SECRET, "COTERIE_SECRET_FILE": "absent"}
        assert "give one of them" in problems_of({}, both)


class TestRoomKeys:
    """What signs the passes of waiting rooms."""

    OLD, NEW = "an old key of 16+", "a new key of 16+"

    def test_the_first_signs_and_all_are_believed(self, tmp_path: Path) -> None:
        """A list in the file, commas in the environment, and no flag."""
        file = write(tmp_path, f'room_keys = ["{self.NEW}", "{self.OLD}"]')
        file.chmod(0o600)
        found = load(LEAST, {}, file=file)
        assert (found.room_keys, found.warnings) == ((self.NEW, self.OLD), ())
        environ = {"COTERIE_ROOM_KEYS": f"{self.NEW}, {self.OLD},"}
        assert load(LEAST, environ).room_keys == (self.NEW, self.OLD)
        assert load(LEAST | {"room_keys": self.OLD}, {}).room_keys == ()

    def test_a_file_that_everybody_may_read_is_warned_of(self, tmp_path: Path) -> None:
        """With the names of what is exposed."""
        file = write(tmp_path, f'room_keys = ["{self.NEW}"]\nsecret = "{SECRET}"')
        file.chmod(0o644)
        (warning,) = load(LEAST, {}, file=file).warnings
        assert warning.startswith("room_keys, secret: ")
        assert "chmod 600" in warning

    @pytest.mark.parametrize(
        ("raw", "said"),
        [
            ("too short", "has a key (number 1) of 9 characters"),
            (f"{OLD},short", "has a key (number 2) of 5 characters"),
            (f"{OLD},{OLD}", "has a key twice"),
            (" , ", "has 0 keys"),
            (",".join(f"a key of 16 chars {n}" for n in range(17)), "has 17 keys"),
        ],
    )
    def test_bad_keys_are_refused_and_not_shown(self, raw: str, said: str) -> None:
        """The problem names the cure, never the key."""
        text = problems_of({}, {"COTERIE_ROOM_KEYS": raw})
        assert text.startswith("room_keys: its value (environment COTERIE_ROOM_KEYS)")
        assert said in text
        assert self.OLD not in text

    def test_what_is_no_list_of_keys_is_refused(self, tmp_path: Path) -> None:
        """Numbers, say."""
        for text in ("room_keys = 5", "room_keys = [5]"):
            with pytest.raises(ConfigError, match="is no list of keys"):
                load(LEAST, {}, file=write(tmp_path, text))

    def test_keys_are_never_shown(self) -> None:
        """Neither in rows nor in a representation."""
        found = load(LEAST, {"COTERIE_ROOM_KEYS": self.NEW})
        rows = {row.key: row for row in found.rows()}
        assert rows["room_keys"].value == "(hidden, 1 of them)"
        assert self.NEW not in found.to_json() + repr(found)


class TestTogether:
    """Settings that have to fit each other."""

    def test_a_nodes_own_entry_among_the_peers_is_dropped(self) -> None:
        """All nodes can be given the same list."""
        peers = ("n1=127.0.0.1:1", "n2=127.0.0.1:2,n3=127.0.0.1:3")
        assert list(load(LEAST | {"peers": peers}, {}).peers) == ["n2", "n3"]

    def test_an_even_number_of_nodes_is_warned_of(self) -> None:
        """Two nodes survive no more failures than one."""
        assert "use an odd number" in load(LEAST | {"peers": "n2=127.0.0.1:2"}, {}).warnings[0]

    def test_tls_needs_all_three_files(self, tmp_path: Path) -> None:
        """And each must be there."""
        path = tmp_path / "cert.pem"
        path.write_text("x", encoding="utf-8")
        assert "give all three or none" in problems_of({"tls_cert": str(path)})
        three = {"tls_cert": str(path), "tls_key": str(path), "tls_ca": str(tmp_path / "no")}
        assert "tls_ca: " in problems_of(three)
        assert load(LEAST | three | {"tls_ca": str(path)}, {}).has_tls

    def test_the_advertised_url_follows_the_http_address(self) -> None:
        """A wildcard cannot be dialled: then the host's name stands in, with a warning."""
        assert load(LEAST, {}).advertise_http == "http://127.0.0.1:7101"
        assert load(LEAST | {"http": "[::1]:1"}, {}).advertise_http == "http://[::1]:1"
        found = load(LEAST | {"http": "0.0.0.0:1"}, {})
        assert "0.0.0.0" not in found.advertise_http
        assert found.warnings[0].startswith("advertise_http: ")
        given = load(LEAST | {"http": "0.0.0.0:1", "advertise_http": "a.example:1/"}, {})
        assert (given.advertise_http, given.warnings) == ("http://a.example:1", ())


class TestParsers:
    """Values as people write them."""

    @pytest.mark.parametrize(
        ("raw", "value_ms"),
        [
            (250, 250),
            ("250", 250),
            ("250ms", 250),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1.5s", 1_500),
            ("PT30S", 30_000),
            ("P1DT2H", 93_600_000),
            ("PT0.25S", 250),
            ("0", 0),
        ],
    )
    def test_durations_are_read_as_people_write_them(self, raw: object, value_ms: int) -> None:
        """Go's notation, ISO 8601 and whole milliseconds."""
        assert config.parse_duration_ms(raw) == value_ms

    @pytest.mark.parametrize("raw", ["5 parsecs", "", "P", "PT", "P1DT", "1y", "1h 30m", "9" * 40])
    def test_other_texts_are_no_durations(self, raw: str) -> None:
        """Years, blanks and half an ISO duration are refused."""
        with pytest.raises(ValueError, match="is no duration"):
            config.parse_duration_ms(raw)

    @pytest.mark.parametrize(
        ("raw", "size"),
        [(5, 5), ("5", 5), ("64MiB", 2**26), ("1 kB", 1000), ("1_000", 1000), ("2gib", 2**31)],
    )
    def test_sizes_are_read_as_people_write_them(self, raw: object, size: int) -> None:
        """Binary and decimal units, in any case of letters."""
        assert config.parse_bytes(raw) == size

    def test_columns_are_read_as_sql_writes_them(self) -> None:
        """In any case of letters and with any blanks."""
        assert config.parse_columns(" ID  Bigint,data TEXT") == "id bigint, data text"

    def test_a_switch_is_on_or_off(self) -> None:
        """Or TOML's own."""
        assert [config.parse_switch(raw) for raw in ("on", " OFF ", True, False)] == [
            True,
            False,
            True,
            False,
        ]

    @given(
        st.one_of(
            st.none(),
            st.booleans(),
            st.floats(),
            st.integers(),
            st.text(),
            st.binary(),
            st.lists(st.text()),
        )
    )
    def test_a_parser_refuses_or_returns_a_value(self, raw: object) -> None:
        """No raw value makes a parser fail in another way."""
        for entry in config.SETTINGS:
            with contextlib.suppress(ValueError):
                entry.parse(raw)


class TestShown:
    """What --print-config prints."""

    def test_every_setting_is_shown_with_its_origin_and_no_secret(self) -> None:
        """As rows and as JSON, in the order of the table."""
        found = load(LEAST | {"peers": "n2=[::1]:1,n3=127.0.0.1:2"}, {"COTERIE_SECRET": SECRET})

        rows = {row.key: row for row in found.rows()}
        told = json.loads(found.to_json())

        assert list(rows) == list(told) == [entry.key for entry in config.SETTINGS]
        assert rows["secret"].value == "(hidden, 20 characters)"
        assert rows["peers"].value == "n2=[::1]:1,n3=127.0.0.1:2"
        assert told["node"] == {"value": "n1", "origin": "flag --node"}
        assert told["peers"]["value"] == {"n2": "[::1]:1", "n3": "127.0.0.1:2"}
        assert told["heartbeat_ms"]["value"] == 100
        assert told["tls_ca"]["value"] is None
        assert SECRET not in found.to_json()

    def test_a_config_cannot_be_changed(self) -> None:
        """It is frozen, and so are its mappings."""
        found = load(LEAST, {})
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.node = "other"  # type: ignore[misc]
        with pytest.raises(TypeError):
            found.peers["n9"] = Address("h", 1)  # type: ignore[index]


class TestSessionQueue:
    """The variables that session-queue itself is told by."""

    OWN = {  # noqa: RUF012
        "PORT": "3000",
        "JWT_SECRET": "secret",
        "WINDOW_SIZE": "7",
        "WINDOW_INTERVAL": "45",
        "ACTIVE_WINDOW_COUNT": "3",
        "REDIS_ADDR": "redis:6379",
    }

    def test_its_whole_environment_switches_its_front_on(self) -> None:
        """Where nothing of ours is said; and --print-config tells where each value is from."""
        found = load(LEAST, self.OWN)
        assert found.fronts == {"session-queue": Address("0.0.0.0", 3000)}
        assert (found.front_session_queue_size, found.front_session_queue_active) == (7, 3)
        assert found.front_session_queue_interval_ms == 45_000
        assert found.front_session_queue_secret == "secret"
        origins = {row.key: str(row.origin) for row in found.rows() if "session_queue" in row.key}
        assert origins == {
            "front_session_queue": "environment PORT",
            "front_session_queue_size": "environment WINDOW_SIZE",
            "front_session_queue_interval_ms": "environment WINDOW_INTERVAL",
            "front_session_queue_active": "environment ACTIVE_WINDOW_COUNT",
            "front_session_queue_secret": "environment JWT_SECRET",
        }
        assert "(hidden, 6 characters)" in {row.value for row in found.rows()}

    @pytest.mark.parametrize("missing", ["PORT", "WINDOW_SIZE", "ACTIVE_WINDOW_COUNT"])
    def test_a_part_of_it_means_nothing(self, missing: str) -> None:
        """Half of all programs are told a PORT; bad values do not matter then either."""
        environ = self.OWN | {"WINDOW_INTERVAL": "soon", missing: ""}
        found = load(LEAST, environ)
        assert found.fronts == {}
        assert found.front_session_queue_size == 10

    def test_ours_come_first(self, tmp_path: Path) -> None:
        """A flag, our variable, the file; its own variables fill in the rest."""
        file = write(tmp_path, "front_session_queue_active = 9")
        ours = {"COTERIE_FRONT_SESSION_QUEUE_SIZE": "8"}
        flags = {"front_session_queue": "127.0.0.1:0"}
        environ = self.OWN | ours | {"WINDOW_SIZE": "junk", "PORT": "junk"}
        found = load(LEAST | flags, environ, file=file)
        assert found.fronts == {"session-queue": Address("127.0.0.1", 0)}
        assert (found.front_session_queue_size, found.front_session_queue_active) == (8, 9)
        assert found.front_session_queue_interval_ms == 45_000

    @pytest.mark.parametrize(
        ("variable", "value", "cure"),
        [
            ("PORT", "http", "is no port; use a number up to 65535"),
            ("PORT", "65536", "is no port"),
            ("WINDOW_SIZE", "ten", "is no whole number; use digits"),
            ("WINDOW_SIZE", "0", "is out of range; use 1 to"),
            ("WINDOW_INTERVAL", "30s", "is no whole number of seconds; use digits"),
            ("ACTIVE_WINDOW_COUNT", "-1", "is no whole number"),
        ],
    )
    def test_a_bad_value_names_its_variable_and_the_cure(
        self, variable: str, value: str, cure: str
    ) -> None:
        """As session-queue does not start with one either."""
        problem = problems_of({}, self.OWN | {variable: value})
        assert f'"{value}" (environment {variable}) {cure}' in problem

    def test_one_active_window_is_warned_of(self) -> None:
        """The cliff edge, whoever said so."""
        found = load(LEAST, self.OWN | {"ACTIVE_WINDOW_COUNT": "1"})
        assert any("front_session_queue_active: with 1" in text for text in found.warnings)
        assert not load(LEAST, self.OWN).warnings
