"""Boxes in containers, for tasks whose repository and dependencies are an image; `docs/containers.md`.

- `backend.py`: `ContainerSandbox`, the back end; `box.py`: one box of it.
- `api.py`: what an engine must do; `engine.py`: Docker and Podman; `apptainer.py`.
- `init.py`: the first program of a container, under the interpreter of `python.py`; `keeper.py`: clears up after an
  owner that was killed.
- `workspace.py`: the repository out of an image, without its history; `images.py`: which images are on this machine.

To add an engine: a class with the methods of `api.Engine`, and a line in `backend.make_engine`.
"""
