"""Block YAML of JSON values, for people and for tools that read it.

RULE: values to text, and nothing back. A text is written bare only where no reader of YAML 1.1 or
1.2 could take it for anything else; all others are quoted by the rules of JSON, which YAML shares.
Standard: YAML 1.2.2, section 5.7 (JSON's escapes are YAML's) and 10.3 (core schema).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

# Begins with a letter and holds nothing that could mean anything: no colon, hash, quote, comma.
_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_./@-]*(?: [A-Za-z0-9_./@-]+)*\Z")
# What some reader takes for true, false, null or a number (`1e3` begins with no letter).
_TAKEN = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


def emit(value: object) -> str:
    """The value as a document without markers; ends without a line end.

    Args:
        value: made of dicts with text keys, lists, text, numbers, booleans and None.
    """
    if isinstance(value, Mapping | list | tuple) and value:
        return "\n".join(_lines(value))
    return _scalar(value)


def _lines(value: Mapping[str, object] | Sequence[object]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{_scalar(key)}:", item, nested=_is_mapping(item))
        return
    for item in value:
        if not _is_nested(item):
            yield f"- {_scalar(item)}"
            continue
        first, *rest = _lines(item)  # type: ignore[arg-type]  # nested means one of the two
        yield f"- {first}"
        yield from (f"  {line}" for line in rest)


def _entry(head: str, item: object, *, nested: bool) -> Iterator[str]:
    if not _is_nested(item):
        yield f"{head} {_scalar(item)}"
        return
    yield head
    # A list stands as deep as its key, as its dashes set it off.
    margin = "  " if nested else ""
    yield from (margin + line for line in _lines(item))  # type: ignore[arg-type]


def _is_mapping(item: object) -> bool:
    return isinstance(item, Mapping)


def _is_nested(item: object) -> bool:
    return isinstance(item, Mapping | list | tuple) and bool(item)


def _scalar(value: object) -> str:
    if isinstance(value, str) and _BARE.match(value) and value.lower() not in _TAKEN:
        return value
    # DEL and the C1 range are no printable characters of YAML, and U+2028 ends a line in 1.1.
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda at: f"\\u{ord(at[0]):04x}", text
    )
