"""A question about other people and things: nothing that its answer rests on changes. Pure.

Only a first name that is surely nothing else in the text is replaced, by one that goes with the same pronouns.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

_SHE: list[str] = re.findall(
    r"\w+",
    "Abigail Alice Alyssa Amanda Amelia Amy Andrea Angela Anna Anne Annie Barbara Becky Bella Beth Betty Brenda"
    " Brittany Carla Carly Carmen Carol Caroline Carolyn Catherine Cheryl Christina Christine Cindy Claire Clara"
    " Cynthia Dana Danielle Diana Diane Donna Dorothy Elena Eliza Elizabeth Ella Ellen Elsa Emily Emma Erica Erin Eva"
    " Evelyn Fiona Gina Gloria Grace Gretchen Hannah Heather Helen Helena Isabella Jane Janet Janice Jasmine Jenna"
    " Jennifer Jenny Jessica Jill Joan Joanna Judy Julia Julie Karen Kate Katie Kayla Kelly Kendra Kimberly Lara Laura"
    " Lauren Layla Leah Leila Lily Linda Lisa Lucy Lydia Madeline Maggie Mandy Maria Marie Marissa Martha Mary Megan"
    " Melanie Melissa Mia Michelle Miriam Molly Monica Nancy Natalia Natalie Nicole Nina Nora Olivia Pamela Patricia"
    " Paula Phoebe Rachel Rebecca Rita Rose Ruth Sally Samantha Sandra Sara Sarah Sharon Sheila Sophia Sophie"
    " Stella Stephanie Sue Susan Susie Tammy Tanya Tara Teresa Tiffany Tina Tracy Vanessa Veronica Wendy Zoe",
)
_HE: list[str] = re.findall(
    r"\w+",
    "Aaron Adam Alan Albert Alexander Andrew Andy Anthony Arnold Arthur Barry Ben Benjamin Bernard Bill Billy Bob Bobby"
    " Brad Brandon Brian Bruce Bryan Caleb Calvin Carl Carlos Charles Chris Connor Craig Daniel Danny Dave David Dennis"
    " Derek Diego Donald Doug Dylan Edward Eric Ethan Evan Felix Frank Fred Gary George Gerald Greg Harold Harry Henry"
    " Howard Hugo Ian Isaac Ivan Jack Jacob Jake James Jared Jason Javier Jeff Jeremy Jerome Jerry Jim Jimmy Joe Joel"
    " Joey John Johnny Jonathan Jorge Jose Joseph Josh Joshua Juan Justin Keith Ken Kenneth Kevin Kyle Larry Leo"
    " Leonard Liam Louis Lucas Luis Luke Malcolm Marcus Mario Mark Martin Matt Matthew Max Michael Miguel Mike Nathan"
    " Neil Nicholas Nick Noah Oliver Oscar Owen Patrick Paul Pete Peter Phil Ralph Randy Raymond Richard Rick Rob"
    " Robert Rodney Roger Ron Ronald Ryan Samuel Scott Sean Simon Stan Stephen Steve Steven Ted Theo Thomas Tim Timothy"
    " Toby Todd Tom Tommy Tony Travis Trevor Troy Tyler Victor Vincent Walter Wayne William Zach",
)
_THINGS = (
    ("peach", "pear", "plum", "lemon", "mango", "banana", "apple"),
    ("cookie", "muffin", "brownie", "cupcake", "donut"),
    ("pencil", "crayon", "pen"),
    ("marble", "sticker", "seashell"),
)
_LEADS_IN = frozenset(
    re.findall(
        r"\w+",
        "after also although and as assuming at because before but by can could did does finally for from given has"
        " how however if in is later meanwhile neither next now of on once since so suppose than then though to today"
        " together was were when while will with would yesterday"
        " monday tuesday wednesday thursday friday saturday sunday",
    )
)
_WORD_BEFORE = re.compile(r"([A-Z][\w'’]*|\b(?:Mr|Mrs|Ms|Dr|St)\.) $")
_NAME_AFTER = re.compile(r"(?:['’]s?)? [A-Z][a-z]|-")


def renamed(text: str, rng: random.Random) -> str:
    """`text` with each name and thing that can be replaced replaced by one that it does not have yet."""
    for old, new in _other_people(text, rng):
        if old.endswith("s"):
            text = re.sub(rf"(?<![\w-]){old}(['’])(?!\w)", rf"{new}\1s", text)
        text = re.sub(rf"(?<![\w-]){old}(?!\w)", new, text)
    for old, new in _other_things(text, rng):
        text = re.sub(rf"(?<![\w-])([Aa])n {old}(?![\w-])", rf"\1 {new}", text)
        text = re.sub(rf"(?<![\w-]){old}(?![\w-])", new, text)
    return text


def free_name(text: str, rng: random.Random) -> str:
    """A first name that does not occur in `text`, or "Somebody"."""
    return rng.choice([name for name in (*_SHE, *_HE) if name not in text] or ["Somebody"])


def _other_people(text: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    taken: set[str] = set()
    for names in (_SHE, _HE):
        for name in names:
            if name in text and _is_only_a_name(name, text):
                others = [other for other in names if other not in taken and not _resembles(other, text)]
                if others:
                    taken.add(new := rng.choice(others))
                    yield name, new


def _resembles(name: str, text: str) -> bool:
    return name.lower() in text.lower() or name.endswith("s")


def _is_only_a_name(name: str, text: str) -> bool:
    """Not part of another word or of a longer name (Saint Mary, Mary Street, Samantha), not a word (to mark)."""
    places = list(re.finditer(rf"(?<![\w-]){name}(?!\w)", text))
    if not places or len(places) != text.lower().count(name.lower()):
        return False
    before = (_WORD_BEFORE.search(text[: place.start()]) for place in places)
    led_in = all(word is None or word[1].lower() in _LEADS_IN for word in before)
    return led_in and not any(_NAME_AFTER.match(text, place.end()) for place in places)


def _other_things(text: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    for things in _THINGS:
        present = [thing for thing in things if re.search(rf"(?i){thing}", text)]
        absent = [thing for thing in things if thing not in present and thing != "apple"]
        for old in present:
            places = re.findall(rf"(?<![\w-]){old}(?:e?s)?(?![\w-])", text)
            if len(places) == len(re.findall(rf"(?i){old}", text)) and absent:
                new = absent.pop(rng.randrange(len(absent)))
                yield _plural(old), _plural(new)
                yield old, new


def _plural(thing: str) -> str:
    return thing + ("es" if thing in {"peach", "mango"} else "s")
