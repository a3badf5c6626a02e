"""What is new to a member since it last heard: the part of an answer that is told as a difference."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelswarm.agent.journal import Journal
from modelswarm.agent.members import Member, Roster
from modelswarm.agent.messages import PeerInfo, Publication
from modelswarm.agent.publications import Publications

Thing = tuple[str, int | str]
"""``("window", number)``, ``("bundle", segment)``, ``("digest", file)`` or ``("node", name)``."""

_MOST_HASHES = 512 << 10
_MOST_ENTRIES = 1024


@dataclass(slots=True)
class News:
    """``cursor``: up to where the member knows the journal then; ``more``: it goes on."""

    cursor: int
    more: bool = False
    published: list[Publication] = field(default_factory=list)
    holders: dict[int, tuple[str, ...]] = field(default_factory=dict)
    peers: list[PeerInfo] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)


def news_for(
    member: Member,
    cursor: int,
    journal: Journal[Thing],
    *,
    publications: Publications,
    roster: Roster,
    digests: Mapping[int, str],
) -> News:
    """The states of things as they are now, of bounded size."""
    news, weight = News(cursor), 0
    for at, thing in journal.after(cursor):
        entries = len(news.published) + len(news.holders) + len(news.peers)
        if weight > _MOST_HASHES or entries >= _MOST_ENTRIES:
            news.more = True
            break
        news.cursor = at
        match thing:
            case ("window", int(number)):
                if (publication := publications.tell(number)) is not None:
                    news.published.append(publication)
                    weight += len(publication.hashes)
            case ("bundle", int(segment)):
                if (publication := publications.tell_bundle(segment)) is not None:
                    news.published.append(publication)
                news.holders[segment] = roster.urls_of_holders(segment, member)
            case ("digest", int(file)):
                news.digests[file] = digests[file]
            case ("node", str(node)) if node != member.node and (other := roster.get(node)) is not None:
                news.peers.append(other.info())
    return news
