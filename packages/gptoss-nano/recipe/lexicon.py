"""Words with a meaning of their own: what the templates say, and names that are always taught."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Words that carry meaning in the templates: no name may be one of them.
STOP_WORDS = frozenset(
    _words(
        """a about add after all also an analysis and any are argument arguments array as ask
        assistant at be begin body boolean browser but by call calls change channel code commentary
        compute create cursor def default delete developer do done end enum error extract false
        field fields file final find for from function functions get give has have help how i id if
        in insert into is it item items json key keys l line lines list loc look match my name
        namespace new no none not null number object of off on one open or page parameter parameters
        patch pattern please print prop properties property python query remove repeat replace
        required result results return run say schema search set string system text than that the
        their then there these this to tool tools true turn type update url use user using value
        values viewing want was web what when where which who will with write yes you your"""
    )
)

# Names that people try first. They are always in the training part.
FAMOUS = _words(
    """Alice Bob Maria Anna Peter John Emma Ada Grace Alan Linus Marie Paul Laura David Sofia Tom
    Julia Max Eva Ahmed Wei Yuki Olga Ivan Carlos Lucia Priya Omar Nina Paris London Berlin Madrid
    Rome Lisbon Vienna Tokyo Oslo Dublin Athens Cairo Delhi Boston Chicago Prague Warsaw Zurich
    Geneva Milan Munich Hamburg Seattle Toronto Sydney Kyoto Seoul Lima Quito Helsinki Stockholm
    Copenhagen Brussels Amsterdam Barcelona Lyon Nice Porto Naples Krakow Budapest Bucharest
    Istanbul Nairobi Lagos"""
)
FAMOUS_FAMILY = _words(
    """Smith Jones Garcia Lopez Müller Rossi Silva Kim Tanaka Novak Ivanov Martin Lovelace Hopper
    Turing Curie Einstein Newton Darwin Brown Taylor Wilson Chen Singh Khan Ali Costa"""
)

# Parameter names that real tools use; mixed with identifiers that nobody has seen.
PARAMETERS = _words(
    """city country location place person title subject message content topic category language
    currency unit color size format email address street zip phone date day month year time start
    stop end_date start_date duration amount price quantity count limit offset width height weight
    distance temperature speed level priority status label tags notes path folder source target
    origin destination customer product order_id account verbose recursive enabled public urgent"""
)

# What people ask about a thing.
ATTRIBUTES = _words(
    """height length population area age capital owner color price weight depth speed director
    author language currency width manager temperature distance"""
)

# Fields of the records that extraction knows by meaning.
FIELDS = _words(
    """name age city company job country email phone food customer product quantity price date
    address event time speaker"""
)


@lru_cache(maxsize=1)
def taught() -> frozenset[str]:
    """Every word that training shows as part of a template; `recipe.kept` wrote the list.

    A list on file, so that a later change of wording moves no name from one part to the other.
    """
    return frozenset((Path(__file__).parent / "taught.txt").read_text("utf-8").split())
