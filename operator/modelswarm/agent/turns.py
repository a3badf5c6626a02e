"""Who of several brings a content to this node: a task and a BaseModel, or two branches, may lead to the same one."""


class Turns:
    """One at a time, the others wait. Of those that ask, the one with the least key: on all nodes the same one then."""

    def __init__(self) -> None:
        self._asking: dict[str, str] = {}
        """Contents, by the key of who wants them."""
        self._taken: dict[str, str] = {}
        """Who brings it, by content."""

    def ask(self, key: str, content: str) -> None:
        self._asking[key] = content

    def take(self, key: str) -> bool:
        """Whether it is this one's turn, from now on until it leaves, to bring what it asked for."""
        content = self._asking[key]
        first = min(other for other, its in self._asking.items() if its == content)
        if first == key:
            self._taken.setdefault(content, key)
        return self._taken.get(content) == key

    def is_taken(self, content: str) -> bool:
        return content in self._taken

    def leave(self, key: str) -> None:
        """It does not ask any more. Harmless twice."""
        content = self._asking.pop(key, "")
        if self._taken.get(content) == key:
            del self._taken[content]
