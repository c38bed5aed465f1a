"""The sentences that ask for a cube, those that ask for nothing, and which of them a model may learn from.

`known` phrases are what a model is trained with and what its prompt encoder compares a sentence with. `unseen` ones are
kept for judging: each has a template or a word for its colour that no known phrase has (`held_out` sorts them by that).
The same holds of the sentences that ask for nothing, `known_refusals` and `unseen_refusals`. All lists are fixed: the
same in every release of this file, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError

TARGETS: Final = ("black", "white", "red", "green", "blue", "yellow")
"""The cubes that can be asked for, by their colour."""

DIM: Final = 32
"""Numbers in a prompt's vector."""

_KNOWN_WORDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "black": (
            *("black", "dark", "blackish", "inky", "soot-coloured", "raven-coloured", "onyx", "sable", "obsidian"),
            *(
                "charcoal black",
                "midnight black",
                "tar-black",
                "deep black",
                "very dark",
                "blackest",
                "liquorice",
                "sooty",
                "almost black",
            ),
            *(
                "asphalt",
                "panther",
                "crow-coloured",
                "shadowy",
                "coffee-black",
                "night-coloured",
                "blackened",
                "gunpowder",
            ),
        ),
        "white": (
            *(
                "white",
                "pale",
                "whitish",
                "pearly",
                "bone-coloured",
                "paper-coloured",
                "eggshell",
                "flour",
                "cream white",
            ),
            *(
                "cotton white",
                "cloud-white",
                "pure white",
                "very pale",
                "whitest",
                "marshmallow",
                "alabaster",
                "porcelain",
                "linen",
            ),
            *("vanilla", "ghostly", "bleached", "salt", "sugar-coloured", "swan", "lily-white", "whitewashed"),
        ),
        "red": (
            *(
                "red",
                "crimson",
                "reddish",
                "vermilion",
                "strawberry-coloured",
                "carmine",
                "maroon",
                "burgundy",
                "wine red",
            ),
            *(
                "poppy red",
                "flame-red",
                "deep red",
                "very red",
                "reddest",
                "raspberry",
                "claret",
                "cranberry",
                "garnet",
            ),
            *(
                "cardinal",
                "lobster",
                "pomegranate",
                "lipstick red",
                "pillar-box red",
                "chilli",
                "beetroot",
                "fire-engine red",
            ),
        ),
        "green": (
            *("green", "emerald", "greenish", "jade", "moss-coloured", "pea-coloured", "fern", "avocado", "mint"),
            *(
                "forest green",
                "apple green",
                "pine-green",
                "deep green",
                "very green",
                "greenest",
                "spinach",
                "sage",
                "pistachio",
            ),
            *("shamrock", "seaweed", "kiwi", "cactus", "clover", "broccoli", "cucumber", "kelly green"),
        ),
        "blue": (
            *(
                "blue",
                "navy",
                "bluish",
                "indigo",
                "denim-coloured",
                "cornflower",
                "sapphire",
                "ultramarine",
                "cerulean",
            ),
            *(
                "royal blue",
                "steel blue",
                "ink-blue",
                "deep blue",
                "very blue",
                "bluest",
                "blueberry",
                "midnight blue",
                "baby blue",
            ),
            *(
                "lapis",
                "marine",
                "powder blue",
                "slate blue",
                "peacock blue",
                "jeans-coloured",
                "ocean blue",
                "electric blue",
            ),
        ),
        "yellow": (
            *("yellow", "golden", "yellowish", "canary", "honey-coloured", "straw-coloured", "saffron", "gold", "corn"),
            *(
                "mustard yellow",
                "sandy yellow",
                "butter-yellow",
                "deep yellow",
                "very yellow",
                "yellowest",
                "custard",
                "maize",
                "flaxen",
            ),
            *("buttercup", "daffodil", "dandelion", "pineapple", "wheat-coloured", "blond", "egg-yolk", "citrine"),
        ),
    }
)
"""The first is the colour's own name."""
_UNSEEN_WORDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "black": ("jet black", "ebony", "pitch-black", "coal-coloured"),
        "white": ("snow-white", "ivory", "milky", "chalky white"),
        "red": ("scarlet", "bright red", "ruby", "cherry red"),
        "green": ("lime", "grass green", "olive", "leaf-coloured"),
        "blue": ("azure", "sky blue", "cobalt", "dark blue"),
        "yellow": ("lemon", "bright yellow", "sunflower yellow", "banana-coloured"),
    }
)

KNOWN_TEMPLATES: Final = (
    "pick the {} cube and put it on the spot",
    "put the {} cube on the spot",
    "pick the {} cube",
    "pick up the {} cube",
    "take the {} block",
    "grab the {} block and put it on the spot",
    "please pick the {} cube",
    "could you pick up the {} block, please",
    "the {} cube",
    "the {} one",
    "the {} one, please",
    "move the {} cube to the spot",
    "place the {} block on the mark",
    "put the {} block back on its spot",
    "bring the {} cube to the mark",
    "lift the {} cube and place it on the spot",
    "now the {} cube",
    "I want the {} cube on the spot",
    "I would like you to take the {} one",
    "the cube that is {}",
    "next, the {} block",
    "on the spot with the {} cube",
    "robot, pick the {} cube",
    "can you put the {} cube on the spot?",
    "go for the {} cube",
    "handle the {} cube next, thanks",
    "we need the {} block in its place",
    "there is a {} cube on the table: pick it",
    "do the {} one",
    "{} cube",
    "{} block to the spot",
    "select the {} object",
    "the {} piece, on the mark, please",
    "lay the {} toy block on the spot",
    "reach for the {} square",
    "gimme the {} one",
    "may I ask you to move the {} object to the spot",
    "would you mind placing the {} piece on the mark",
    "it is time for the {} cube",
    "catch the {} block and carry it to the spot",
    "hold the {} cube, then release it on the spot",
    "the {} cube belongs on the spot",
    "where the mark is, that is where the {} block must go",
    "out of these cubes take the {} one",
    "my choice is {}",
    "colour: {}",
    "{} please",
    "start with {}",
    "swap to the {} cube",
    "change of plan: the {} block",
    "deal with the {} element",
)
_UNSEEN_TEMPLATES: Final = (
    "grasp the {} object and return it to its place",
    "fetch the {} thing",
    "would you be so kind as to collect the {} brick",
    "seize the {} cube, then set it down on the target",
    "the target circle is where the {} piece belongs",
    "hey, get me that {} thing over there",
    "it is the {} item that should be carried to the marker",
    "deliver the {} die to the marked area",
    "transfer the {} box onto the circle",
    "of all the things on the table, choose the {} one",
    "let's tidy up the {} brick",
    "clear away the {} piece by setting it on the goal",
    "your job is to relocate the {} cube to the destination",
    "relocate {} object",
    "find the {} cube and drop it at the goal",
    "kindly retrieve the little {} dice",
    "the small {} box goes over there",
    "what about the {} one instead",
    "{} thing, go",
    "get {}",
)
_TYPED: Final = (
    "pikc the {} cube",
    "pick teh {} cueb",
    "put teh {} blok on the sopt",
    "pcik up the {} cube plz",
    "PICK THE {} CUBE!!!",
    "pick  the   {}   cube ...",
)
_MISSPELT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "black": ("pick the blck cube", "the balck cube", "put the blakc one on the spot"),
        "white": ("pick the wite cube", "the whtie cube", "put the whit one on the spot"),
        "red": ("pick the redd cube", "the rde cube", "put the reed one on the spot"),
        "green": ("pick the gren cube", "the grene cube", "put the greeen one on the spot"),
        "blue": ("pick the bleu cube", "the bule cube", "put the blu one on the spot"),
        "yellow": ("pick the yelow cube", "the yellwo cube", "put the yello one on the spot"),
    }
)
_WRITTEN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "black": (
            "grab the dark thing and return it",
            "the one that looks like a piece of coal goes on the circle",
            "I need the darkest brick at the goal",
            "black. spot. go.",
            "would the black box fit over there? try it",
        ),
        "white": (
            "grab the pale thing and return it",
            "the one as bright as snow goes on the circle",
            "I need the brick that is the colour of milk at the goal",
            "white. spot. go.",
            "would the white box fit over there? try it",
        ),
        "red": (
            "grab the crimson thing and return it",
            "the one with the colour of blood goes on the circle",
            "I need the tomato-coloured brick at the goal",
            "red. spot. go.",
            "would the red box fit over there? try it",
        ),
        "green": (
            "grab the emerald thing and return it",
            "the one with the colour of grass goes on the circle",
            "I need the brick that is green as a frog at the goal",
            "green. spot. go.",
            "would the green box fit over there? try it",
        ),
        "blue": (
            "grab the navy thing and return it",
            "the one with the colour of the sea goes on the circle",
            "I need the sky-coloured brick at the goal",
            "blue. spot. go.",
            "would the blue box fit over there? try it",
        ),
        "yellow": (
            "grab the golden thing and return it",
            "the one with the colour of the sun goes on the circle",
            "I need the brick that is yellow as a canary at the goal",
            "yellow. spot. go.",
            "would the yellow box fit over there? try it",
        ),
    }
)

_COMMON_WORDS: Final = 2
"""The first words of each colour come with every template, the rarer ones with every fourth."""
_EVERY: Final = 4

_KNOWN_STRANGERS: Final = (
    "orange",
    "purple",
    "pink",
    "brown",
    "grey",
    "colourless",
    "rainbow-coloured",
    "teal",
    "cyan",
    "lilac",
    "tan",
    "bronze",
)
"""Colours that no cube has which can be asked for."""
_UNSEEN_STRANGERS: Final = ("violet", "turquoise", "beige", "magenta", "silver", "transparent")
_KNOWN_STRANGE_COLOURS: Final = (
    "pick the {} cube and put it on the spot",
    "put the {} cube on the spot",
    "pick the {} cube",
    "take the {} block",
    "the {} one",
    "{} cube",
)
_UNSEEN_STRANGE_COLOURS: Final = ("grab the {} thing and return it", "pick up the {} cube", "fetch the {} brick")

_KNOWN_ADJECTIVES: Final = (
    *("big", "small", "wooden", "metal", "heavy", "soft", "new", "old", "round", "first", "last"),
    *("broken", "shiny", "plastic", "rubber", "glass", "nearest", "farthest", "left", "right", "middle", "other"),
    *("same", "best", "wrong", "cheap", "wet", "dry", "hot", "cold", "clean", "dirty", "open"),
    *("closed", "empty", "full", "hollow", "rough", "smooth", "sharp", "flat", "tall", "short", "wide"),
    *("funny", "ugly", "pretty", "lucky", "secret", "magic", "rotten", "fresh", "sweet", "salty", "loud"),
    *("quiet", "slow", "fast", "sleepy", "happy", "angry"),
)
"""What a cube may be without being asked for by its colour."""
_KNOWN_ADJECTIVE_PHRASES: Final = (
    "pick the {} cube and put it on the spot",
    "the {} one, please",
    "take the {} block",
    "{} cube",
    "put the {} cube on the spot",
    "I want the {} piece on the mark",
)

_KNOWN_THINGS: Final = (
    *("ball", "cup", "pen", "bottle", "book", "car", "banana", "shoe", "shirt", "flower", "chair"),
    *("hat", "bag", "door", "spoon", "fish", "cat", "lamp", "towel", "tree", "bowl", "knife"),
    *("glove", "coat", "dress", "sofa", "bed", "curtain", "carpet", "bread", "cheese", "potato", "orange"),
    *("grape", "onion", "carrot", "egg", "cake", "dog", "horse", "bird", "cow", "mouse", "butterfly"),
    *("truck", "train", "boat", "plane", "bus", "motorcycle", "house", "wall", "roof", "window", "flag"),
    *("paper", "pencil", "ruler", "eraser", "stapler", "scissors", "screw", "nail", "wrench", "cable", "plug"),
    *("button", "ring", "necklace", "watch", "camera", "radio", "keyboard"),
)
"""What no cube is, whatever its colour."""
_KNOWN_COLOURED_THINGS: Final = ("pick the {} {}", "the {} {}", "put the {} {} on the spot")

_KNOWN_NEGATIONS: Final = (
    "not {}",
    "no, not the {} block",
    "don't pick the {} one",
    "keep your hands off the {} cube",
    "not the {} cube",
    "do not pick the {} cube",
    "don't touch the {} block",
    "leave the {} cube alone",
    "anything but the {} one",
    "never put the {} cube on the spot",
)
_UNSEEN_NEGATIONS: Final = (
    "not the {} one",
    "stay away from the {} brick",
    "do not move the {} thing",
    "please don't take the {} cube",
    "avoid the {} box",
)

_KNOWN_PAIRS: Final = (
    "take the {0} block and the {1} block",
    "first the {0} cube, then the {1} one",
    "{0} and {1}",
    "pick the {0} cube and the {1} cube",
    "the {0} or the {1} one",
    "put the {0} cube on the {1} cube",
)
_UNSEEN_PAIRS: Final = ("grab both the {0} and the {1} brick", "stack the {0} block onto the {1} block")

_KNOWN_REFUSALS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "no colour": (
            "pick the cube",
            "put it on the spot",
            "pick up a cube and put it on the spot",
            "take a block",
            "any cube",
            "do it again",
            "the other one",
            "move",
        ),
        "other thing": (
            "pick the banana",
            "pick the elephant",
            "put the cup on the table",
            "pick up the pen",
            "bring me a glass of water",
            "take the ball",
            "pick the dog",
            "put the shoe on the spot",
            "take the horse",
            "put the book on the shelf",
            "pick up the phone",
            "the green plant",
            "pick the white flower",
            "bring the red chair",
            "put on the blue shirt",
            "take the yellow bus",
            "lift the black box of chocolates off the shelf",
            "find my glasses",
        ),
        "other task": (
            "open the drawer",
            "wave your hand",
            "turn left",
            "go home",
            "clean the table",
            "close the gripper",
            "stop",
            "wait",
            "dance for me",
            "write a letter",
            "cook dinner",
            "switch on the light",
            "push the black cube off the table",
            "throw the white cube away",
            "turn the red cube around",
            "play some music",
            "look at the green cube",
            "count the blue cubes",
            "is there a yellow cube?",
            "what colour is the black cube",
            "break the white block",
            "move your arm up",
            "close the window",
            "read me a story",
            "charge the battery",
        ),
        "chatter": (
            "hello",
            "how are you",
            "thank you very much",
            "what is your name",
            "tell me a joke",
            "the weather is nice today",
            "I am hungry",
            "who won the game last night",
            "yes",
            "no",
            "what is the capital of France",
            "one two three four five",
            "is the sky blue",
            "a white christmas",
            "the green party won the vote",
            "black coffee",
            "the red cross",
            "yellow is my favourite colour",
            "the dark side of the moon",
            "see you tomorrow",
            "I do not understand",
            "she went to school by train",
            "the price of bread has risen again",
            "this robot is expensive",
            "my brother plays the guitar",
            "it will rain in the afternoon",
        ),
        "noise": ("asdf", "x", "???", "12345", "lorem ipsum dolor sit amet", "null"),
        "other language": (
            "nimm den Würfel",
            "wie spät ist es",
            "ouvre la porte",
            "hola, qué tal",
            "buongiorno a tutti",
            "хорошо",
        ),
    }
)
_UNSEEN_REFUSALS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "no colour": (
            "grab something",
            "put the brick back",
            "get that thing over there",
            "collect all of them",
            "choose one",
            "begin",
        ),
        "other thing": (
            "pick the giraffe",
            "fetch the newspaper",
            "pass me the salt",
            "lift the hammer",
            "grab the teddy bear",
            "pick up the keys",
        ),
        "coloured thing": (
            "fetch the black umbrella",
            "grab the red apple",
            "pass me the white plate",
            "the blue bicycle",
            "pick the green pepper",
            "the yellow duck",
            "bring me the red telephone",
            "put the white sock on the spot",
            "take the black hammer",
        ),
        "other task": (
            "sing a song",
            "open the door",
            "shake hands with me",
            "rotate the wrist",
            "show me your tools",
            "calibrate the camera",
            "halt",
            "water the plants",
            "call my mother",
            "paint the wall green",
            "hide the blue cube",
        ),
        "chatter": (
            "what time is it",
            "good morning",
            "nice to meet you",
            "how old are you",
            "I love music",
            "where is the train station",
            "my car broke down yesterday",
            "never mind",
            "the blue whale is a mammal",
            "roses are red",
            "the White House",
            "black holes emit radiation",
            "the stock market fell by three percent",
        ),
        "noise": ("", "   ", "qwertz", ".", "0x7f", "aaaaaaaaaaaaaaaa", "🤖🤖🤖", "SELECT * FROM cubes"),
        "other language": (
            "öffne die Tür",
            "quelle heure est-il",
            "cierra la ventana",
            "come stai",
            "今天天气很好",
            "доброе утро",
        ),
    }
)
FOREIGN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "black": ("nimm den schwarzen Würfel", "prends le cube noir", "coge el cubo negro"),
        "white": ("nimm den weißen Würfel", "prends le cube blanc", "coge el cubo blanco"),
        "red": ("nimm den roten Würfel", "prends le cube rouge", "coge el cubo rojo"),
        "green": ("nimm den grünen Würfel", "prends le cube vert", "coge el cubo verde"),
        "blue": ("nimm den blauen Würfel", "prends le cube bleu", "coge el cubo azul"),
        "yellow": ("nimm den gelben Würfel", "prends le cube jaune", "coge el cubo amarillo"),
    }
)
"""Right requests in languages that nothing here was made for: to be understood or refused, never to be mistaken."""


def vector(target: str) -> NDArray[np.float32]:
    """`(DIM,)` float32 of length 1: what stands for a target, whatever encoder reads the prompt.

    The encoder is trained towards these, and the policy is fed them: so a better encoder needs no new policy. They are
    rows of a Hadamard matrix: far from each other, exact, and the same on every machine.

    Raises:
        ConfigError: there is no such target.
    """
    if target not in TARGETS:
        raise ConfigError(f"no phrases ask for target {target!r}: there are {', '.join(TARGETS)}")
    row = TARGETS.index(target) + 1  # the first row is all ones
    signs = [-1.0 if (row & column).bit_count() % 2 else 1.0 for column in range(DIM)]
    return np.array(signs, np.float32) / np.float32(np.sqrt(DIM))


def known(target: str) -> tuple[str, ...]:
    """What asks for `target` and may be learnt from; the first is the plainest.

    Raises:
        ConfigError: there is no such target.
    """
    words = _words(_KNOWN_WORDS, target)
    rarer = (
        KNOWN_TEMPLATES[(index + step * _EVERY) % len(KNOWN_TEMPLATES)].format(word)
        for index, word in enumerate(words[_COMMON_WORDS:])
        for step in range(len(KNOWN_TEMPLATES) // _EVERY)
    )
    return _distinct(chain((t.format(word) for word in words[:_COMMON_WORDS] for t in KNOWN_TEMPLATES), rarer, words))


def known_words(target: str) -> tuple[str, ...]:
    """The words for a target's colour that may be learnt from; the first is its name.

    Raises:
        ConfigError: there is no such target.
    """
    return _words(_KNOWN_WORDS, target)


def unseen_words(target: str) -> tuple[str, ...]:
    """The words for a target's colour that are kept for judging.

    Raises:
        ConfigError: there is no such target.
    """
    return _words(_UNSEEN_WORDS, target)


def held_out(target: str) -> Mapping[str, tuple[str, ...]]:
    """What asks for `target` and is kept for judging, by what is new about it.

    Raises:
        ConfigError: there is no such target.
    """
    old, new = _words(_KNOWN_WORDS, target)[:_COMMON_WORDS], _words(_UNSEEN_WORDS, target)
    return {
        "new wording": _distinct(template.format(word) for word in old for template in _UNSEEN_TEMPLATES),
        "new colour word": _distinct(template.format(word) for word in new for template in KNOWN_TEMPLATES),
        "both new": _distinct(template.format(word) for word in new for template in _UNSEEN_TEMPLATES),
        "typing": (
            *_distinct(template.format(old[0].upper() if "PICK" in template else old[0]) for template in _TYPED),
            *_MISSPELT[target],
        ),
        "hand-written": _WRITTEN[target],
    }


def unseen(target: str) -> tuple[str, ...]:
    """All of `held_out`.

    Raises:
        ConfigError: there is no such target.
    """
    return _distinct(chain.from_iterable(held_out(target).values()))


def known_refusals() -> Mapping[str, tuple[str, ...]]:
    """What asks for none of the targets and may be learnt from, by kind."""
    return {
        "other colour": _fill(_KNOWN_STRANGE_COLOURS, _KNOWN_STRANGERS),
        "coloured thing": _things(),
        "no colour but": _adjectives(),
        "negation": _fill(_KNOWN_NEGATIONS, TARGETS),
        "two at once": _pairs(_KNOWN_PAIRS),
        **_KNOWN_REFUSALS,
    }


def unseen_refusals() -> Mapping[str, tuple[str, ...]]:
    """What asks for none of the targets and is kept for judging, by kind."""
    return {
        "other colour": _fill(_UNSEEN_STRANGE_COLOURS, _UNSEEN_STRANGERS),
        "negation": _fill(_UNSEEN_NEGATIONS, TARGETS),
        "two at once": _pairs(_UNSEEN_PAIRS),
        **_UNSEEN_REFUSALS,
    }


def _words(words: Mapping[str, tuple[str, ...]], target: str) -> tuple[str, ...]:
    if target not in words:
        raise ConfigError(f"no phrases ask for target {target!r}: there are {', '.join(TARGETS)}")
    return words[target]


def _fill(templates: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(template.format(word) for word in words for template in templates)


def _things() -> tuple[str, ...]:
    """Every thing in two colours, every colour with many things, each pair in two ways."""
    count, ways = len(TARGETS), len(_KNOWN_COLOURED_THINGS)
    return tuple(
        _KNOWN_COLOURED_THINGS[(index + step + way) % ways].format(TARGETS[(index + 3 * step) % count], thing)
        for index, thing in enumerate(_KNOWN_THINGS)
        for step in (0, 1)
        for way in (0, 1)
    )


def _adjectives() -> tuple[str, ...]:
    """Each in two of the phrases."""
    ways = len(_KNOWN_ADJECTIVE_PHRASES)
    return tuple(
        _KNOWN_ADJECTIVE_PHRASES[(index + step) % ways].format(word)
        for index, word in enumerate(_KNOWN_ADJECTIVES)
        for step in (0, 3)
    )


def _pairs(templates: tuple[str, ...]) -> tuple[str, ...]:
    """Each colour with the next two: enough to meet every colour in both places."""
    pairs = [(first, TARGETS[(index + step) % len(TARGETS)]) for index, first in enumerate(TARGETS) for step in (1, 2)]
    return tuple(template.format(*pair) for pair in pairs for template in templates)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
