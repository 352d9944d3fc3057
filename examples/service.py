"""A service that answers every request with what it cost: joules, beside the text.

    python examples/service.py out/ llama.json [--port 8080]

``out/`` is a bundle of irene-build, ``llama.json`` a symbolic tree (``irene-build trace MODEL --symbolic -o
llama.json``). Only the exported module is imported: no torch, no meter. The text here is made up; put your model
where ``generate`` is.

    curl -d '{"prompt": "Why is the sky blue?", "max_tokens": 64}' http://127.0.0.1:8080/
"""

from __future__ import annotations

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def generate(prompt: str, max_tokens: int) -> tuple[str, int, int]:
    """Your model: the text, how many tokens the prompt had, how many were generated."""
    return "Because blue light scatters most.", max(1, len(prompt.split())), max_tokens


def energy_of(estimator: Any, tree: Any, prompt_tokens: int, new_tokens: int) -> dict[str, Any]:
    """What a request costs, as one puts it beside the usage of tokens in an answer."""
    p = estimator.request(tree, prompt=prompt_tokens, new=new_tokens)
    low, high = p.interval_j
    return {"energy_j": p.energy_j, "interval_j": [low, high], "energy_per_token_j": p.energy_j / new_tokens}


class Handler(BaseHTTPRequestHandler):
    estimator: Any
    tree: Any

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text, prompt, new = generate(str(body["prompt"]), int(body.get("max_tokens", 64)))
            usage = {"prompt_tokens": prompt, "completion_tokens": new}
            status, answer = 200, {"text": text, "usage": usage, "energy": self.energy(prompt, new)}
        except (KeyError, TypeError, ValueError) as error:
            status, answer = 400, {"error": f"expected prompt and max_tokens: {error}"}
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def energy(self, prompt: int, new: int) -> dict[str, Any]:
        try:
            return energy_of(self.estimator, self.tree, prompt, new)
        except Exception as error:  # no answer fails because its joules are not known; it says so
            return {"error": str(error)}

    def log_message(self, format: str, *values: Any) -> None:
        pass


def server(bundle: Path, tree: Path, port: int) -> ThreadingHTTPServer:
    sys.path.insert(0, str(bundle))
    from irene_estimator import Estimator

    estimator = Estimator()
    handler = type("Bound", (Handler,), {"estimator": estimator, "tree": estimator.load_tree(str(tree))})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--port", type=int, default=8080)
    asked = parser.parse_args()
    with server(asked.bundle, asked.tree, asked.port) as serving:
        print(f"listening on http://127.0.0.1:{serving.server_port}/", flush=True)
        serving.serve_forever()
