"""`crrl tasks make` for Go, JavaScript and TypeScript, and Rust: the parts that a language brings.

    grammar      what the nodes of the syntax trees are called, language by language (Java's, too)
    operators    changes of one function, by kind, as edits of its text; `mistaken`: their tables of words
    functions    the functions of a file, and their mutants
    toolchain    how a language's suite is set up, run, covered and judged; `go`, `javascript`, `rust` say it
    traced       languages whose tests can be made to note their calls: `go_trace`, `script_trace`
    asserted     languages whose failures are told by what their assertions say, and which side is right
    units, scope the tests of a test file; which of its names are a function's own
    telling      the issue text
    hiding       tests taken out of files
    screening, maker   the parts of `screening.py` and `make.py` with these in their places

To add a language: its nodes in `grammar.py`, a `Toolchain`, and a line in `maker.TOOLCHAINS` and `plans.MARKS`.
"""
