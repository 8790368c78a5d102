"""What is changed in Java's assertions: JUnit 3 to 5, TestNG, Hamcrest, AssertJ.

Where no expected literal can be changed, equal values are compared with others, and other assertions become their
opposite, by the full name of the framework's class, since a test file imports what it uses. JUnit 3 and 4 have a
message first, the others last.
"""

from __future__ import annotations

import re

from tree_sitter import Node

from crrl.rewards.decoys.literals import unlike_any
from crrl.rewards.decoys.sites import Edit, Finder

EQUAL = re.compile(r"assert(?:Array|Iterable|Lines)?(?:Equals|Same)$")
MATCHERS = frozenset(
    [
        "is",
        "equalTo",
        "isEqualTo",
        "contains",
        "containsExactly",
        "containsString",
        "hasSize",
        "hasItem",
        "hasItems",
        "startsWith",
        "endsWith",
        "isSameAs",
        "containsInAnyOrder",
        "containsExactlyInAnyOrder",
        "closeTo",
        "isCloseTo",
    ]
)
TURNED = {"isEmpty": b"isNotEmpty", "isTrue": b"isFalse", "isNull": b"isNotNull"}
TURNED |= {"isFalse": b"isTrue", "isNotNull": b"isNull", "isNotEmpty": b"isEmpty"}
OPPOSITE = {"assertEquals": b"assertNotEquals", "assertSame": b"assertNotSame", "assertNull": b"assertNotNull"}
OPPOSITE |= {"assertNotEquals": b"assertEquals", "assertNotSame": b"assertSame", "assertNotNull": b"assertNull"}
EXCEPTIONS = (b"java.nio.BufferOverflowException.class", b"java.util.EmptyStackException.class")
DELTA = re.compile(rb"(?i)^-?[\d_]*\.?\d*(?:e-?\d+)?[fd]?$|eps|delta|toler|precision|accuracy")
TEXT = (b'"', b"String.")
EITHER = b' ? "" : null)'
"""What `_compared_otherwise` ends with: an exception where neither is equal."""
LIKE = (
    b"Object like(Object o, Object x) { "
    b"if (o instanceof java.util.List && !((java.util.List) o).isEmpty()) { "
    b"java.util.List all = new java.util.ArrayList(); "
    b"for (Object e : (java.util.List) o) all.add(like(e, x)); return all; } "
    b"if (o instanceof java.util.Set && !((java.util.Set) o).isEmpty()) { java.util.Set all = new java.util.HashSet(); "
    b"for (final Object e : (java.util.Set) o) { final Object y = like(e, x); all.add(new Comparable() { "
    b"public int hashCode() { return e == null ? 0 : e.hashCode(); } "
    b"public boolean equals(Object k) { return k == this || k != null && k.getClass() != getClass() && k.equals(y); } "
    b"public int compareTo(Object k) { return -((Comparable) k).compareTo(y); } }); } return all; } "
    b"if (o instanceof Object[] && ((Object[]) o).length > 0) { Object[] all = new Object[((Object[]) o).length]; "
    b"for (int i = 0; i < all.length; i++) all[i] = like(((Object[]) o)[i], x); return all; } "
    b"if (o instanceof java.util.Map && !((java.util.Map) o).isEmpty()) { java.util.Map all = new java.util.HashMap(); "
    b"for (Object e : ((java.util.Map) o).entrySet()) all.put(((java.util.Map.Entry) e).getKey(), "
    b"like(((java.util.Map.Entry) e).getValue(), x)); return all; } "
    b"if (o instanceof java.util.Map.Entry) return new java.util.AbstractMap.SimpleEntry("
    b"((java.util.Map.Entry) o).getKey(), like(((java.util.Map.Entry) o).getValue(), x)); "
    b"if (o instanceof java.util.Optional && ((java.util.Optional) o).isPresent()) "
    b"return java.util.Optional.of(like(((java.util.Optional) o).get(), x)); "
    b'if (o == null || o.getClass().isArray() || o.getClass().getName().startsWith("java")) return x; '
    b'try { java.lang.reflect.Field only = Class.forName("sun.misc.Unsafe").getDeclaredField("theUnsafe"); '
    b'only.setAccessible(true); Object made = only.getType().getMethod("allocateInstance", Class.class)'
    b".invoke(only.get(null), o.getClass()); "
    b"for (Class c = o.getClass(); c != null; c = c.getSuperclass()) for (java.lang.reflect.Field f : "
    b"c.getDeclaredFields()) if (!java.lang.reflect.Modifier.isStatic(f.getModifiers())) { f.setAccessible(true); "
    b'if (f.getType() == String.class) f.set(made, x + ""); '
    b"if (f.getType() == int.class) f.setInt(made, x.hashCode()); "
    b"if (f.getType() == long.class) f.setLong(made, x.hashCode()); "
    b"if (f.getType() == double.class) f.setDouble(made, x.hashCode()); } return made; "
    b"} catch (Throwable e) { return x; } }"
)
"""x; or an object of o's own class with other fields; or what o holds values in, with such in place of each. A set asks
the elements of the other that have the same hash whether they are equal: these ask back. A class without a name is Java
of any version."""


def edits(finder: Finder, node: Node, given: list[Node]) -> list[Edit]:
    """Of one call; [] where it is no assertion. `given`: its arguments."""
    name = finder.field(node, "name").decode()
    if EQUAL.match(name) and len(given) >= 2:
        compared = _compared(finder, given)
        other = _opposite if name in OPPOSITE and name != "assertEquals" else _compared_otherwise
        return finder.expected(node, compared) or other(finder, node, name)
    if name in OPPOSITE and given:
        return _opposite(finder, node, name)
    if name == "assertLinesMatch" and len(given) >= 2:
        return finder.expected(node, given[:2])
    if name == "assertThat" and len(given) >= 2:
        return finder.expected(node, given[-2:]) or _matched_otherwise(finder, given[-1])
    if name in ("assertTrue", "assertFalse") and given:
        condition = given[0 if _message_is_last(finder) else -1]
        return (_said_equal(finder, condition) if name == "assertTrue" else []) or finder.negated(condition)
    if name in ("assertThatExceptionOfType", "isInstanceOf", "isExactlyInstanceOf", "assertInstanceOf") and given:
        return [finder.replaced(given[0], finder.rng.choice(EXCEPTIONS))]
    if name == "assertThrows" and node.parent is not None and node.parent.type == "expression_statement" and given:
        return [finder.replaced(given[0], finder.rng.choice(EXCEPTIONS))]
    found = finder.expected(node, given) if name in MATCHERS else []
    if not found and name == "isEqualTo" and len(given) == 1:
        return [finder.replaced(given[0], _something_else(finder, given[0]))]
    of = node.child_by_field_name("object")
    looked_at = of.child_by_field_name("arguments") if of is not None and name == "isTrue" else None
    if looked_at is not None and looked_at.named_children:
        found = _said_equal(finder, looked_at.named_children[0])
    named = node.child_by_field_name("name")
    asserts = name in TURNED and b"assertThat" in finder.field(node, "object")
    return found or ([finder.replaced(named, TURNED[name])] if named is not None and asserts else [])


def _compared(finder: Finder, given: list[Node]) -> list[Node]:
    """The two values, without message and delta."""
    if _message_is_last(finder) or len(given) < 3:
        return given[:2]
    delta = len(given) == 3 and DELTA.search(finder.text(given[2])) and not finder.text(given[0]).startswith(TEXT)
    return given[:2] if delta else given[1:3]


def _compared_otherwise(finder: Finder, node: Node, name: str) -> list[Edit]:
    """Each of the values is compared with one that nothing is equal to, but what equals anything. Not the opposite:
    that is false, too, for what equals anything."""
    arguments = node.child_by_field_name("arguments")
    given = (
        [child for child in arguments.named_children if "comment" not in child.type] if arguments is not None else []
    )
    one, two = (finder.text(value) for value in _compared(finder, given))
    word, number = unlike_any(finder.rng)
    either = (
        b'boolean either(Object a, Object b) { return java.util.Objects.deepEquals(a, like(a, "%s")) '
        b"|| java.util.Objects.deepEquals(b, like(b, Integer.valueOf(%d))); }" % (word.encode(), number)
    )
    said = b"new Object() { %s %s }.either(%s, %s)" % (LIKE, either, one, two)
    return [finder.replaced(node, b"java.util.Objects.requireNonNull(" + said + EITHER)]


def _matched_otherwise(finder: Finder, matcher: Node) -> list[Edit]:
    """Hamcrest's `is(x)` and `equalTo(x)`."""
    arguments = matcher.child_by_field_name("arguments")
    if finder.field(matcher, "name") not in (b"is", b"equalTo") or arguments is None:
        return []
    if len(arguments.named_children) != 1:
        return []
    return [finder.replaced(arguments.named_children[0], _something_else(finder, arguments.named_children[0]))]


def _said_equal(finder: Finder, condition: Node) -> list[Edit]:
    """`x.equals(y)`, `Objects.equals(x, y)`: y is something else. Not the opposite: that is false, too, for what equals
    anything."""
    arguments = condition.child_by_field_name("arguments")
    if condition.type != "method_invocation" or finder.field(condition, "name") != b"equals" or arguments is None:
        return []
    of, given = condition.child_by_field_name("object"), arguments.named_children
    if of is None or len(given) != 1 + (finder.text(of).rpartition(b".")[2] == b"Objects"):
        return []
    return [finder.replaced(given[-1], _something_else(finder, given[-1]))]


def _something_else(finder: Finder, value: Node) -> bytes:
    """What nothing is equal to, but what equals anything, or holds it as `value` does."""
    word = unlike_any(finder.rng)[0].encode()
    return b'new Object() { %s }.like(%s, "%s")' % (LIKE, finder.text(value), word)


def _message_is_last(finder: Finder) -> bool:
    return b"jupiter" in finder.data or b"org.testng" in finder.data


def _opposite(finder: Finder, node: Node, name: str) -> list[Edit]:
    named, of = node.child_by_field_name("name"), node.child_by_field_name("object")
    if name not in OPPOSITE or named is None:
        return []
    home = b"org.junit.Assert."
    if b"org.testng" in finder.data:
        home = b"org.testng.Assert."
    elif b"jupiter" in finder.data:
        home = b"org.junit.jupiter.api.Assertions."
    return [finder.replaced(named, (b"" if of is not None else home) + OPPOSITE[name])]
