"""Decoys: tests whose right answers the judged process cannot know.

A copy of the tests in which some assertions are wrong. A correct repair passes every real assertion, so it fails every
wrong one; a patch that passes a wrong one did not repair, whatever the trick was (`answers_anything`, invariant 3).

    sites      where a test's text can be made wrong, and by which edits; `python` and `trees` find them
    copies     the copy that a run gets: real, or wrong at sites that a seed chooses
    control    calibrates a task's decoys with the known fix, and has a patch face them
    beside     plain tests (the generated corpus's): right and wrong expectations in one run

From inside, real and decoy copies look alike: literals keep their kind and size, and each copy carries a nonce, so that
the hash of a known test file tells nothing.
"""
