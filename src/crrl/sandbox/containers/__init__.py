"""Boxes in containers, for tasks whose repository and dependencies come as an image; see `docs/containers.md`.

- `backend.py`: `ContainerSandbox`, the back end; `box.py`: one of its boxes.
- `api.py`: the protocol of an engine; `engine.py`: Docker and Podman; `apptainer.py`.
- `init.py`: the first program of a container, under the interpreter of `python.py`; `keeper.py`: cleans up after an
  owner that was killed.
- `workspace.py`: the repository of an image, without its history; `images.py`: the images on this machine.

To add an engine, write a class with the methods of `api.Engine`, and a line in `backend.make_engine`.
"""
