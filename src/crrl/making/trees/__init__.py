"""`crrl tasks make` for Go, JavaScript and TypeScript, Rust and Java: the parts that a language brings.

    grammar     what the nodes of the syntax trees are called, language by language
    operators   changes of one function, by kind, as edits of its text
    functions   the functions of a file, and their mutants
    toolchain   how a language's suite is set up, run, covered and judged; `go`, `javascript`, `rust`, `java` say it
    failures    what a failing test says: place, message, values
    assertions  which side of an assertion is what came, and which what should have
    telling     the issue text of a failure
    hiding      tests taken out of files
    maker       the run of `make.py` with these parts

To add a language: its nodes in `grammar.py`, a `Toolchain`, and a line in `maker.TOOLCHAINS`.
"""
