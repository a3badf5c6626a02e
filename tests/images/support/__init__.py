"""What the tests of the images share."""

from tests.images.support.container import Container, Result

__all__ = ["Container", "Result"]
