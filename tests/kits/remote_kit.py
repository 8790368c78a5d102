"""A server on loopback that answers chat completions as a test tells it to."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-never-shown"


def completion(content: str | None = "hello", finish: str = "stop", **message: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    message = {"role": "assistant", "content": content, **message}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


class ChatServer:
    """Answers with each of `answers` in turn, the last one again and again: (status, body, headers)."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = [(200, completion(), {})]
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.keys.append(self.headers["Authorization"])
                status, body, headers = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if status == 0:  # no answer at all
                    self.connection.close()
                    return
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def rest(self) -> str:
        return json.dumps({"url": self.url, "model": "big", "key_variable": "TEST_KEY", "context": 4096})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error"}}
