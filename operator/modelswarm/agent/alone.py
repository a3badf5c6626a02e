"""A node that the others shun reads by itself what it lacks: nobody talks to it, and nobody gives it work.

It may be shunned without fault, for as long as a liar's word holds against its own. Then this is what brings it the
content; and if it is the one that is broken, it costs what it lacks, once, and the digests keep it from being complete.
"""

from modelswarm.agent.reading import Reading
from modelswarm.agent.stock import Stock
from modelswarm.agent.verifying import Verifying


class Alone:
    def __init__(self, stock: Stock, reading: Reading, verifying: Verifying) -> None:
        self._stock = stock
        self._reading = reading
        self._verifying = verifying
        self._tried: set[int] = set()

    def go(self, pause: float) -> None:
        """Take on everything that is missing or wrong, each segment once. ``pause``: seconds before any is read."""
        holdings, bad = self._stock.holdings, self._verifying.bad
        under_way = [each for each in self._reading.accepted if each in self._tried]
        due = [
            segment.index
            for segment in holdings.segments
            if segment.index not in self._tried
            and (not holdings.has(segment.index) or any(number in bad for number in segment.files))
        ]
        self._tried.update(due)
        # Whatever others have told of these, what the origin gives to this node is what counts here.
        self._reading.assign([*under_way, *due], [*under_way, *due], pause)
