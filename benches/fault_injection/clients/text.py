"""The text port: one line asks, one line answers."""

import asyncio

from ..outcome import CALL_S, REJECTED, UNKNOWN, Failed, Odd


class Text:
    """Each task has a connection of its own to each node."""

    name, deletes = "text", True

    def __init__(self, nodes):
        self.addresses = nodes.text

    def client(self):
        return TextClient(self.addresses)

    async def close(self):
        """Its connections end with the process."""


class TextClient:
    def __init__(self, addresses):
        self.addresses, self.open = addresses, {}

    async def is_ready(self, node):
        if node in self.open:
            return True
        try:
            self.open[node] = await asyncio.wait_for(asyncio.open_connection(*self.addresses[node], limit=1 << 20), 0.5)
            return True
        except (OSError, TimeoutError):
            return False

    async def ask(self, node, *lines):
        """An answer for each line, or None if it did not come. Then the connection is given up."""
        answers = []
        try:
            reader, writer = self.open[node]
            writer.write("".join(f"{line}\n" for line in lines).encode())
            async with asyncio.timeout(CALL_S + 1):
                await writer.drain()
                while len(answers) < len(lines):
                    answer = await reader.readuntil(b"\n")
                    answers.append(answer[:-1].decode())
        except (OSError, EOFError, TimeoutError):
            _, writer = self.open.pop(node)
            writer.transport.abort()
        return answers + [None] * (len(lines) - len(answers))

    async def set(self, node, key, write):
        [answer] = await self.ask(node, f"SET {key.name} {key.value(write.number)}")
        check_written(answer)

    async def delete(self, node, key, write):
        [answer] = await self.ask(node, f"DEL {key.name}")
        check_written(answer)

    async def get(self, node, name):
        [answer] = await self.ask(node, f"GET {name}")
        return value_or_none(answer), None


def check_written(answer):
    """Raises what became of a write that was not acknowledged. NOT_FOUND is for who deletes."""
    if answer is None:
        raise Failed(UNKNOWN, "the connection broke, or there was no answer")
    if answer == "OK" or answer.startswith("ERROR stored"):
        return
    if answer.startswith("ERROR rejected:") or answer == "NOT_FOUND":
        raise Failed(REJECTED, answer)
    if answer.startswith("ERROR unknown:"):
        raise Failed(UNKNOWN, answer)
    raise Odd(answer)


def value_or_none(answer):
    """What a GET was answered; None if the key is not there."""
    if answer is None or answer.startswith("ERROR"):
        raise Failed(REJECTED, answer)
    return None if answer == "NOT_FOUND" else answer
