"""A grammar that draws sentences by seed for the prompt encoder to learn from: requests, and what asks for nothing.

The known phrases (`vla_training.phrases`) are few wordings; an encoder that learns from them alone takes a new verb or
noun for a refusal. Here a sentence is put together from verbs, nouns, places, courtesies and word orders. In a rule,
`<name>` stands for any alternative of the rule of that name, `{}` for a word for the target's colour, `{0}` and `{1}`
for two colours. Only the encoder learns from these; recorded data and policies know the known phrases alone.

To choose thresholds without the sentences that judge, alternatives can be *kept back*: a sixth of every rule that
holds content. A trial encoder learns from sentences without them, and is measured on sentences that have one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from itertools import chain
from types import MappingProxyType
from typing import Final

import numpy as np

from vla_core.prompt_spelling import plain
from vla_training import phrases

Rules = Mapping[str, tuple[str, ...]]


PER_TARGET, PER_KIND = 1100, 900
"""Sentences that an encoder learns from, of each target and of each kind that asks for nothing."""


class Part(Enum):
    """Which sentences are drawn."""

    ALL = "all"
    LEARNT = "learnt"
    """None with an alternative that is kept back."""
    KEPT = "kept"
    """Each with one at least."""


KEPT_RULES: Final = frozenset(
    {"take", "taking", "place", "placing", "noun", "spot", "request", "opener", "closer", "naming", "fact", "wish"}
    | {"harm", "order", "pair", "not", "question", "past", "saying", "chore", "thing", "stranger", "adjective"}
)
"""Of these a sixth of the alternatives can be kept back."""
_KEPT_EVERY: Final = 6
_SLOT: Final = re.compile(r"<([a-z-]+)>")
_NAME_SHARE, _SECOND_SHARE, _SHADE_SHARE = 0.35, 0.15, 0.15
"""How often a colour is called by its name, by its second known word, and by its name with a shade."""


def _rules(text: str) -> Rules:
    """Rules from text: `name:`, and below it the alternatives, parted by bars; one that is there twice counts twice."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.split("\n"):
        if not line.startswith(" ") and line.endswith(":"):
            name = line.removesuffix(":")
        elif line.strip():
            found.setdefault(name, []).append(line.strip())
    return MappingProxyType(
        {name: tuple(part.strip() for part in " ".join(lines).split("|")) for name, lines in found.items()}
    )


_REQUEST_RULES: Final[Rules] = _rules(
    """
ask:
    <command> | <command> | <command> | <request> <command> | <request> <command> | <opener> <command> |
    <command>, <closer> | <opener> <request> <command> | <request> <command>, <closer> | <asking-ing> <doing> |
    <opener> <wish> | <wish> | <wish> | <naming> | <naming> | <naming> | <opener> <naming> | <naming>, <closer> |
    <fact> | <fact> | <opener> <fact>
command:
    <take> <it> | <take> <it> | <take> <it> <from> | <take> <it> and <place> it <spot> |
    <take> <it> and <place> it <spot> | <take> <it>, then <place> it <spot> | <place> <it> <spot> |
    <place> <it> <spot> | <place> <it> <spot> | <place> <it> | <give> <it> | <give> <it> | go and <take> <it> |
    <spot> <place> <it> | <take> <it> and let go of it <spot> | <place> <it> <way> | <take> <it> <way> | <order> |
    <order> | <take> <it> before anything else | <take> only <it>
doing:
    <taking> <it> | <taking> <it> and <placing> it <spot> | <placing> <it> <spot> | <placing> <it> |
    <taking> <it> for me | <taking> <it> now
it:
    the {} <noun> | the {} <noun> | the {} <noun> | the {} <noun> | the {} one | the {} one | that {} <noun> |
    this {} <noun> | a {} <noun> | my {} <noun> | the <size> {} <noun> | the <noun> that is {} |
    the <noun> which is {} | the one that is {} | the <noun> in {} | the {} <noun> <where> | the {} |
    the {} coloured <noun> | the <noun> of {} colour | {} <noun> | the <noun> that looks {} |
    the <noun> with the {} sides | the {} <size> <noun> | whatever is {} | the {} <noun> of the set | our {} <noun> |
    the only {} <noun> | the <noun> painted {}
take:
    move | return | put away | put back | tidy up | tidy away | clear away | carry | bring over | relocate |
    transfer | transport | deliver | shift | place | store | stow away | send over | set aside | take | grab | pick |
    pick up | fetch | get | grasp | grip | collect | lift | lift up | hold | catch | seize | snatch | choose |
    select | retrieve | gather | clutch | clasp | pinch | raise | take hold of | get hold of | reach for | go for |
    go get | scoop up | pull up | pluck | acquire | secure | obtain | pick out | take up |
    close your fingers around | wrap the gripper around | find | locate and take | lay hands on | help yourself to |
    claim | hoist | heave | extract | capture | single out | opt for | elevate | procure | bag | nab | take away |
    take out | look for | search for | spot and grab | head for | turn to | approach and take | work on | handle |
    see to | take care of | attend to | process | deal with | continue with | begin with | try | try to get |
    manage | use | concentrate on | switch to | prefer | pick me | sort
taking:
    taking | grabbing | picking | picking up | fetching | getting | grasping | gripping | collecting | lifting |
    holding | catching | choosing | selecting | retrieving | gathering | reaching for | going for | scooping up |
    securing | raising | finding | handling | dealing with | taking care of | seeing to | working on |
    starting with | snatching | getting hold of
place:
    put | place | set | lay | move | bring | carry | deliver | transfer | drop | deposit | set down | put down |
    put back | return | transport | shift | take | send | position | rest | keep | haul | convey | relocate |
    release | stow | park | store | tidy away | tidy up | lower | plant | plop | slide | drag | guide | get |
    lay down | bring back | bring over | bring along | arrange | situate | install | ship | land | unload | ferry |
    lug | hand over | place down | restore | push | fit | locate | put away | clear up | file | dump | transplant |
    rehome | drive | steer
placing:
    putting | placing | setting | laying | moving | bringing | carrying | delivering | transferring | dropping |
    depositing | returning | transporting | shifting | positioning | resting | setting down | relocating |
    tidying up | lowering | storing | releasing | parking | bringing back
give:
    give me | hand me | pass me | get me | bring me | bring us | find me | let me have | fetch me |
    show me that you can move | give us | make it | let's have | let's take | let's do | let's move | hand over |
    let us go for | go on with | carry on with | give it a go with | have a go at
noun:
    cube | cube | cube | cube | block | block | block | brick | object | piece | thing | item | box | die | dice |
    square | element | toy | part | toy block | toy cube | building block | little cube | small block |
    wooden block | cuboid | lump | chunk | bit | unit | body | solid | component | article | cubelet | little box |
    building brick | play block | specimen | workpiece | fellow | guy | candidate | blob | cubic thing |
    square thing | cubical object | token | tile | stuff | model cube | foam cube | plastic cube | play cube |
    cubes piece | parcel
size:
    small | little | tiny | big | large | nice | wooden | plastic | pretty | square | lovely
where:
    on the table | over there | in front of you | on the desk | on the left | on the right | there | you can see |
    lying there | on the surface | in the middle | from the table | next to you | you see | within reach |
    at the edge | in view | of mine | I see | at the back | down there
from:
    from the table | off the table | from there | with your gripper | from its place | for me | now
way:
    slowly | carefully | gently | quickly | right away | at once | for me | now | next | first |
    as fast as you without a hurry | this time | again | with care | immediately | instead
spot:
    on the spot | on the mark | on its spot | in its place | on the target | at the goal | to the goal |
    to the spot | to the mark | onto the circle | on the circle | in the circle | to its place | where it belongs |
    to the target | into the marked area | in the marked zone | at the marker | on the marker | to the destination |
    at its destination | where it should be | on the goal | to where it belongs | in the right place |
    at the marked place | to the drop zone | in the target area | onto the pad | on the dot | on the marked spot |
    inside the ring | on the cross | at the finish | to the designated place | in position | to its home |
    back home | where the mark is | over there | on top of the mark | on the target spot | at the indicated place |
    to the landing place | on the disc | at its station | on the patch | to the other side where the mark is |
    in its slot | back in its place | to the goal area | on the bullseye | where you see the circle |
    onto the plate mark | on the location
opener:
    robot, | hey, | hello robot, | ok, | okay, | now | now, | next, | then | alright, | right, | well, | so, |
    hey robot, | dear robot, | listen, | good, | and now | this time | after that | first, | for the next step, |
    as a next step, | change of plan: | new task: | your task: | once more, | if you are ready, |
    when you have time, | attention: | excuse me, | quick, | finally, | one more thing: | actually, | no wait, |
    hm, | instead, | mission: | arm, | buddy, | hi there, | your job: | go ahead and | just | simply | quickly |
    carefully | gently | immediately | again | today
closer:
    please | thanks | thank you | will you | would you | robot | now | if you right now | ok | if possible |
    my friend | for me | quickly | carefully | as soon as you if you please | cheers | if it is no trouble |
    that's all | nothing else | and then stop | when you are ready | go | can you | I would be grateful |
    that would be great | at once | good robot | and be careful | don't hurry
request:
    would you be able to | any chance you could | is it possible for you to | I'd be happy if you could | do go and |
    it would help me if you could | please be so nice as to | I was hoping you could | go on, | we should |
    mind you | please | could you | can you | would you | will you | could you please | can you please | kindly |
    I want you to | I would like you to | I'd like you to | I need you to | you should | you must | you have to |
    would you please | may I ask you to | your task is to | your job is to | try to | it is time to | let's |
    let us | we have to | we need to | you you may now | be so good as to | would you be so kind as to |
    I ask you to | I am asking you to | I command you to | make sure to | do me a favour and |
    it would be nice if you could | could you possibly | I wish you would | now you | the next step is to |
    your goal is to | the plan is to | remember to | do | please go and | feel free to | be a dear and | you are to |
    the task is to | I'd be glad if you could | help me to | time to | want to
asking-ing:
    mind | would you be okay with | any objections to | let's try | would you mind | do you mind | how about |
    what about | I suggest | start by | please start | consider | I recommend | I would appreciate you |
    you could help by | begin by | next comes | I'd love to see you | go on by | your next job is | the task is
wish:
    let me see <it> <spot> | we are ready for <it> | ready for <it> | time for <it> | let's go with <it> |
    I think <it> is next | let's see <it> <spot> | I fancy <it> | I'm after <it> | I could do with <it> |
    could you have <it> <spot> | it would be good to have <it> <spot> | I'd be happy to see <it> <spot> |
    I want <it> <spot> | I want <it> | I need <it> | I need <it> <spot> | I would like <it> | I'd like <it> |
    I'd like <it> <spot> | we need <it> <spot> | I would like to have <it> | I wish to see <it> <spot> |
    we want <it> next | I want to see <it> <spot> | I'd prefer <it> | I choose <it> | I pick <it> | I'll have <it> |
    I vote for <it> | my choice is <it> | I am asking for <it> | I am after <it> | I long for <it> | I mean <it> |
    I was thinking of <it> | I meant <it> | may I have <it> | can I have <it> | could I get <it> |
    could we have <it> <spot> | may I see <it> <spot> | I require <it> | I expect <it> <spot> |
    we are going to need <it> | all I want is <it> | what I need is <it> | what I want is <it> <spot> |
    I would love <it> to be <spot> | I am looking for <it> | we go with <it> | I have decided on <it> |
    please have <it> <spot> | get <it> <spot> | I want <it> moved | let it be <it> | I want <it> to go <spot> |
    see that <it> gets <spot> | make <it> go <spot> | have <it> brought <spot>
naming:
    <it> | <it> | <it> <spot> | <it>, <spot> | <spot> with <it> | <spot> <it> | {} | {} please | {} one | {} <noun> |
    {} <noun> <spot> | {}, go | only <it> | just <it> | <it> next | <it> first | <it> again | <it> instead |
    what about <it> | how about <it> | why not <it> | yes, <it> | no, <it> | sorry, <it> | <it> this time |
    colour: {} | {} it is | the colour is {} | target: {} | task: {} <noun> | {} now | and <it> | then <it> |
    rather <it> | maybe <it> | <it>, yes | of all <noun>s <it> | <it> to go | among these <it> |
    out of all of them <it> | from the <noun>s on the table <it> | <it> over there | {} <noun>, <take> |
    {} <noun>: <place> <spot> | <noun> colour {} | <noun>, {} | {}, <take> it |
    the {} <noun>, <take> it and <place> it <spot> | <it>. <spot>. | {}. <spot>. thanks | same with <it> |
    once again <it> | this one: <it> | your target is <it> | the next one is <it> | next up is <it>
fact:
    <it> should end up <spot> | <it> should sit <spot> | <it> should be lying <spot> | <it> is due <spot> |
    it looks like <it> should go <spot> | what goes <spot> is <it> | <it> has to go <spot> | <it> is up next |
    now it is <it> that goes <spot> | <it> will do | <it> looks good, <take> it | <it> belongs <spot> |
    <it> goes <spot> | <it> should go <spot> | <it> must go <spot> | <it> needs to be <spot> |
    <it> has to be moved <spot> | <it> is to be placed <spot> | <it> is the one to <take> | <it> is the one I want |
    <it> is next | <it> is what I need | <it> wants to go <spot> | it is <it> that I want |
    it's <it> that must go <spot> | it is time for <it> | it is the turn of <it> | there is <it>: <take> it |
    there is <it>, <place> it <spot> | see <it>? <take> it | you see <it>? <place> it <spot> |
    <it> is waiting to be moved | <it> is in the wrong place, <place> it <spot> | <spot> is where <it> belongs |
    <spot> is where <it> should be | <spot> goes <it> | <it> is missing <spot> | the one to <take> is {} |
    the one I want is {} | the <noun> I need is {} | the <noun> to <take> is the {} one |
    my favourite is <it>, <take> it | the mark is for <it> | the spot is waiting for <it> | the goal needs <it> |
    now comes <it> | the target should get <it> | nothing but <it> should be <spot> |
    your target is the <noun> that is {} | if you find <it>, <take> it | as soon as you see <it>, <place> it <spot> |
    <it> has its place <spot> | <it> ought to be <spot> | <it> deserves to be <spot> |
    the circle is where <it> belongs | <it>'s place is <spot> | I see <it>, so <take> it |
    look for <it> and <take> it | look, <it>! <take> it | where the mark is, put <it> | <it> can be moved <spot> |
    can <it> go <spot> | could <it> be placed <spot> | should be {}: <take> it
order:
    don't stop until <it> is <spot> | let <it> be <spot> | make sure <it> ends up <spot> | get <it> <spot> |
    see to it that <it> is <spot> | make sure that <it> lands <spot> | keep going until <it> is <spot> |
    find out which <noun> is {} and <take> it | of the <noun>s <take> the {} one | among them <take> <it> |
    out of the <noun>s choose the {} one | help <it> get <spot> | complete the job with <it> | show <it> its place |
    free the table of <it> | clear the table of <it> | leave the rest and <take> <it> |
    let the others be and <take> <it> | use your gripper on <it> | move your arm to <it> and <take> it |
    start with <it> | do <it> | do <it> next | finish with <it> | repeat that with <it> | do the same with <it> |
    give <it> a new place <spot>
    """
)

_REFUSAL_RULES: Final[Rules] = _rules(
    """
thing:
    ball | cup | pen | bottle | book | car | banana | shoe | shirt | flower | chair | hat | bag | door | spoon |
    fish | cat | lamp | towel | tree | bowl | knife | glove | coat | dress | sofa | bed | curtain | carpet | bread |
    cheese | potato | grape | onion | carrot | egg | cake | dog | horse | bird | cow | mouse | butterfly | truck |
    train | boat | plane | bus | motorcycle | house | wall | roof | window | flag | paper | pencil | ruler | eraser |
    stapler | screw | nail | wrench | cable | plug | button | ring | necklace | watch | camera | radio | keyboard |
    mug | jug | glass | fork | pan | pot | kettle | toaster | oven | fridge | sponge | brush | comb | mirror |
    candle | vase | rug | pillow | blanket | sheet | jacket | jumper | skirt | scarf | belt | tie | boot | sandal |
    slipper | helmet | cap | crown | wig | mask | tomato | pear | peach | plum | melon | strawberry | cabbage |
    lettuce | bean | pea | mushroom | pumpkin | garlic | biscuit | sweet | chocolate | sausage | steak | burger |
    pizza | soup | juice | milk | wine | beer | tea | lion | tiger | bear | monkey | wolf | fox | rabbit | sheep |
    goat | pig | hen | goose | frog | snake | spider | bee | ant | whale | shark | crab | turtle | parrot | owl |
    eagle | rose | tulip | daisy | leaf | branch | stone | rock | shell | feather | bucket | spade | rake | axe |
    saw | drill | screwdriver | pliers | ladder | rope | chain | hook | tape | glue | crayon | paintbrush | folder |
    envelope | stamp | letter | card | map | magazine | calendar | poster | picture | frame | clock | phone |
    laptop | tablet | screen | printer | speaker | headphones | charger | battery | bulb | torch | remote | piano |
    guitar | drum | violin | trumpet | flute | doll | kite | puppet | robot | balloon | racket | bat | skateboard |
    sledge | tent | rucksack | suitcase | wallet | purse | coin | key | lock | pillar | gate | fence | bridge |
    tower | castle | ship | lorry | tractor | van | taxi | ambulance | helicopter | rocket | wheel | tyre | engine |
    seat | pipe | hose | tap | bath | shower | toilet | soap | shampoo | razor | toothbrush | perfume | lipstick |
    plaster | pill | syringe | thermometer | cone | pyramid | sphere | cylinder | triangle | star | heart | cushion |
    napkin | tray | basket | jar | tin | lid | cork | person | man | woman | child | hand | finger | head | hair |
    eye | tooth | nose | foot | table | desk | shelf | cupboard | drawer | bench | anchor | apron | arrow | ashtray |
    axle | bagel | balcony | bandage | banner | barrel | basin | bathtub | beach | beard | beetle | bell | berry |
    bib | bin | blender | blouse | bone | bonnet | bookcase | bow | bracelet | broom | bun | cabinet | cage |
    calculator | camel | canoe | cannon | canvas | carriage | cart | cauliflower | cave | celery | chalk | chicken |
    chimney | chisel | church | cigarette | cloth | cloud | coconut | collar | compass | computer | cookie | cooker |
    costume | cottage | cradle | crocodile | cupcake | deer | desert | diamond | dish | dolphin | donkey | doughnut |
    dragon | earring | elephant | fan | fig | file | film | fire | fireplace | fountain | freezer | fur | garage |
    garden | garment | globe | goggles | grass | hamster | handbag | handkerchief | handle | harp | hedge | hill |
    hood | hoodie | insect | jeans | jewel | jigsaw | kangaroo | ketchup | kitten | koala | lamb | lantern |
    laundry | lawn | leash | lens | letterbox | lightbulb | line | lizard | lollipop | lunchbox | mailbox |
    mattress | medal | microphone | microscope | microwave | mitten | mop | moon | mosquito | motor | mountain |
    mousepad | muffin | needle | nest | net | notebook | nut | oar | octopus | oil | overcoat | paddle | padlock |
    painting | pancake | panda | parachute | passport | pasta | penguin | petal | pickle | pigeon | pin | pocket |
    pond | pony | postbox | powder | pudding | puppy | puzzle | pyjamas | quilt | raincoat | rice | river | road |
    robe | salad | sand | sandwich | sauce | saucer | sauna | scale | scooter | sculpture | seal | shield | shorts |
    sign | sink | sky | slide | snail | snowman | soda | soldier | spice | squirrel | staircase | stick | stocking |
    stool | stove | string | submarine | sugar | suit | sunglasses | surfboard | sweater | swimsuit | sword | tail |
    tank | tarpaulin | teaspoon | telescope | television | throne | thread | ticket | toolbox | tracksuit | trailer |
    treasure | trolley | trousers | tunnel | turkey | turnip | typewriter | uniform | vacuum | vegetable | vest |
    volleyball | waistcoat | wallpaper | walnut | wardrobe | water | web | whistle | windmill | wing | wire | wood |
    wool | worm | yacht | yoghurt | zebra | zip | traffic light | school bus | tennis ball | coffee cup |
    water bottle | teapot | T-shirt | pair of trousers | wine glass | box of chocolates | light switch | football |
    dinosaur | paint pot | ink cartridge | cotton
stranger:
    orange | purple | pink | brown | grey | gray | colourless | rainbow-coloured | teal | cyan | lilac | tan |
    bronze | mauve | khaki | fuchsia | plum-coloured | chestnut | amber | copper | lavender | peach-coloured |
    salmon | coral | mahogany | hazel | taupe | ochre | rosy | striped | spotted | chequered | multicoloured |
    see-through | invisible | chrome | metallic | two-tone | chocolate-coloured | caramel | rust-coloured |
    aubergine | apricot | nude | dotted | skin-coloured
adjective:
    big | small | wooden | metal | heavy | soft | new | old | round | first | last | broken | shiny | plastic |
    rubber | glass | nearest | farthest | left | right | middle | other | same | best | wrong | cheap | wet | dry |
    hot | cold | clean | dirty | open | closed | empty | full | hollow | rough | smooth | sharp | flat | tall |
    short | wide | funny | ugly | pretty | lucky | secret | magic | rotten | fresh | loud | quiet | slow | fast |
    sleepy | happy | angry | biggest | smallest | lightest | second | third | closest | remaining | missing | next |
    spare | favourite | special | usual | correct | square | cubic | tiny | huge | nice
coloured-thing:
    the {} <thing> | a {} <thing> | {} <thing> | <take> the {} <thing> | <take> the {} <thing> |
    <take> the {} <thing> and <place> it <spot> | <place> the {} <thing> <spot> | <give> the {} <thing> |
    <request> <take> the {} <thing> | <opener> <place> the {} <thing> <spot> | the {} <thing>, please |
    <take> the {} <thing> from the <thing> | <take> that {} <thing> <where> | <take> the <thing> that is {} |
    I want the {} <thing> | I need a {} <thing> | where is the {} <thing> | the <size> {} <thing> |
    the {} <thing> belongs <spot> | put on the {} <thing> | would you mind <taking> the {} <thing>
other-thing:
    the <thing> | <take> the <thing> | <take> the <thing> | <take> the <thing> and <place> it <spot> |
    <place> the <thing> <spot> | <give> the <thing> | <request> <take> the <thing> | I want the <thing> |
    <opener> <place> the <thing> <spot> | <place> the <thing> on the <thing> | <take> my <thing> |
    <place> the <thing> in the <thing> | <give> a <thing> | <take> the <adjective> <thing> | <thing>
no-colour:
    <take> the <noun> | <take> a <noun> | <take> it | <take> it and <place> it <spot> | any <noun> |
    <place> the <noun> <spot> | <place> it <spot> | <request> <take> the <noun> | the <noun> | <noun> |
    <take> something | <take> one of them | <give> the <noun> | <opener> <take> the <noun> | that one |
    <take> any <noun> and <place> it <spot> | <take> the other one | all of them | <place> all <noun>s <spot> |
    <take> every <noun> | <request> <place> it <spot> | <take> nothing | <take> everything | some <noun> | <take> |
    <place> | <spot> | <request> <take> one | whichever <noun> you like | the same <noun> again |
    <take> a random <noun> | <take> two <noun>s | <take> them <way> | <opener> | <closer> | <way>
adjective-only:
    <take> the <adjective> <noun> | the <adjective> <noun> | <place> the <adjective> <noun> <spot> |
    <take> the <adjective> <noun> and <place> it <spot> | the <adjective> one | <adjective> <noun> |
    <request> <take> the <adjective> one | I want the <adjective> <noun> <spot> | <opener> the <adjective> one
other-colour:
    <ask>
negation:
    <it> can wait | <it> is off limits | <it> is taboo | leave <it> where it is | please leave <it> alone |
    let <it> stay there | leave <it> be | I'd rather you left <it> alone | <it> should be left alone |
    nothing should happen to <it> | keep <it> where it is | <not> <take> <it> | <not> <take> <it> |
    <not> <take> <it> and <place> it <spot> | <not> <place> <it> <spot> | <not> <place> <it> |
    <opener> <not> <take> <it> | <not> <take> <it>, <closer> | <except> <it> | <except> <it> |
    <request> not <take> <it> | <stop> <taking> <it> | <stop> <placing> <it> <spot> | <opener> <except> <it> |
    <except> <it>, <closer> | <take> <anything> <except-for> <it> | <place> <anything> <except-for> <it> <spot> |
    <not> {} | not {} | no {} | no {} <noun> | not {}, <closer> | anything that is not {} |
    <take> the <noun> that is not {} | <it> is not to be moved | <it> must not be touched | <it> should stay |
    <it> stays where it is | <it> must not go <spot> | <it> does not belong <spot> | <it> should not be moved |
    I do not want <it> | I don't want <it> <spot> | I don't need <it> | I no longer want <it> | I didn't mean <it> |
    we do not need <it> | nobody needs <it> | <it> is not the one | <it> is not what I want | it is not <it>
not:
    whatever you do, don't | don't you dare | please never | you are not allowed to | I told you not to |
    I beg you not to | it would be wrong to | don't | do not | never | please don't | please do not | you must not |
    you should not | you may not | don't ever | I don't want you to | I do not want you to | you mustn't |
    under no circumstances | by no means | it is forbidden to | refrain from trying to | do not dare to |
    there is no need to | you can't | you shouldn't | I'd rather you did not | make sure not to | be careful not to |
    try not to | let us not | no need to
stop:
    stop | quit | no more | refrain from | cease | give up | I am against | without | instead of | keep from |
    stop that, no | I forbid | you are not to be
except:
    hold off on | please leave | stay clear of | no need for | I am done with | let me keep | ignore | not |
    no, not | anything but | everything but | all but | everything except | leave | leave alone | keep away from |
    hands off | keep off | keep your hands off | ignore | skip | forget | forget about | steer clear of | let go of |
    don't bother with | never mind | spare | never | do without | cancel | drop the idea of | no to | omit |
    leave out | be careful with | keep clear of | wait with | reject | pass over | refuse | don't even look at |
    anyone but | enough of | exclude | please not
anything:
    anything | everything | all | any <noun> | every <noun> | something | all <noun>s | a <noun>
except-for:
    but | except | other than | except for | apart from | besides | without | and not
pair:
    <take> the {0} <noun> and the {1} <noun> | <take> the {0} and the {1} one | {0} and {1} | {0} or {1} |
    <place> the {0} <noun> on the {1} <noun> | <place> the {0} <noun> next to the {1} one | {0}, {1} |
    first the {0} <noun>, then the {1} <noun> | the {0} or the {1} <noun> | the {0} and the {1} <noun> <spot> |
    swap the {0} and the {1} <noun> | exchange the {0} <noun> with the {1} one | either {0} or {1} |
    <take> the {0} <noun> after the {1} one | <take> the {0} <noun> before the {1} one | neither {0} nor {1} |
    <place> the {0} <noun> beside the {1} one | <place> the {0} <noun> under the {1} <noun> | {0} then {1} |
    <place> {0} between {1} and the wall | <take> the {0} <noun>, not the {1} one | not the {0} one, the {1} one |
    <take> the {0} <noun> instead of the {1} one | the {0} one rather than the {1} one | both {0} and {1} <spot> |
    <take> {0} and {1} <noun>s | put {0} on {1} | the {0} and {1} <noun> | the {0}-{1} <noun> | {0} with {1} dots |
    compare the {0} <noun> with the {1} one | <take> the {0} <noun> and leave the {1} one | {0} on top of {1} |
    <take> the {0} <noun> or <take> the {1} one | <place> the {0} <noun> where the {1} <noun> is | {0} plus {1} |
    <request> <take> the {0} <noun> and the {1} one | <place> the {0} and the {1} <noun>s together | {0} & {1} |
    the {0} <noun> <spot> and the {1} <noun> back | build a tower from {0} and {1} |
    stand the {0} <noun> by the {1} one | if there is no {0} <noun>, <take> the {1} one |
    decide between {0} and {1} | mix {0} and {1}
question:
    is there <it> | is there a {} <noun> | where is <it> | where are the {} <noun>s | what is <it> | who has <it> |
    how many {} <noun>s are there | how big is <it> | how heavy is <it> | is <it> <quality> | what colour is <it> |
    do you see <it> | can you see <it> | did you <take> <it> | have you moved <it> | did you put <it> <spot> |
    why did you <take> <it> | why is <it> <spot> | who put <it> <spot> | when did you <take> <it> | is <it> <spot> |
    was <it> <spot> | which <noun> is {} | does <it> belong to you | how far away is <it> | are you sure about <it> |
    are the <noun>s {} | is that {} | is it {} | what do you think of <it> | do you like <it> | do you like {} |
    what is {} in French | is <it> still there | how long does it take to <take> <it> | has <it> been moved |
    whose is <it> | what happens if you <take> <it> | what does {} mean | do you know <it> | how did <it> get there |
    why is it {}
past:
    I <took> <it> yesterday | you <took> <it> | you already <took> <it> | someone <took> <it> | he <took> <it> |
    <it> was <spot> | <it> is already <spot> | <it> fell down | <it> is <quality> | <it> has gone | <it> is lost |
    <it> was moved this morning | thank you for <taking> <it> | well done with <it> | you have finished <it> |
    I bought <it> last week | I like <it> | I hate <it> | I see <it> | I made <it> myself | I painted <it> |
    you dropped <it> | you missed <it> | I will <take> <it> myself | I can <take> <it> alone | my son <took> <it> |
    <it> is heavier than the rest | <it> is done | <it> does not exist | there is no {} <noun> |
    <it> belongs to my sister | nobody has seen <it> | they sold <it> | <it> costs five euros | <it> is broken |
    <it> looks <quality>
quality:
    heavy | soft | new | old | broken | shiny | wet | dry | hot | cold | clean | dirty | empty | lovely | ugly |
    quite heavy | very old | too big | cheap | scratched | sticky | gone | fine | too small | beautiful | expensive |
    hollow | round
waste:
    into the bin | in the rubbish | on the floor | out of the window | into the trash | in the fire | into the oven |
    under the sofa | behind the cupboard | in the fridge | in your mouth | on your head | on the roof | in the river
took:
    took | grabbed | picked | moved | put away | dropped | lost | used | held | placed | brought
task:
    <place> <it> <waste> | <request> <place> <it> <waste> | <harm> <it> | <harm> <it> | <harm> <it> |
    <request> <harm> <it> | <opener> <harm> <it> | <harm> <it>, <closer> | <throw> <it> <elsewhere> |
    <throw> <it> <elsewhere> | <request> <throw> <it> <elsewhere> | <chore> | <chore> | <chore> | <request> <chore> |
    <opener> <chore> | <chore>, <closer> | <use> the <thing> | <use> the <thing> | <request> <use> the <thing> |
    <use> the {} <thing> | <use> the <thing> {}
harm:
    break | crush | smash | burn | paint | wash | clean | kick | hit | knock over | count | describe | look at |
    watch | photograph | point at | point to | turn around | rotate | flip | spin | shake | roll | squeeze | smell |
    taste | eat | sell | buy | draw | measure | weigh | label | guard | cover | bury | cut | melt | saw | bite |
    lick | scratch | polish | tilt | tip over | juggle | touch | poke | bounce | name | recolour | inspect |
    examine | film | scan | stare at | think of | talk about | explain | spell | imagine | destroy | demolish |
    glue | nail down | dry | warm up | heat | cool down | repair | fix | hug | kiss | greet | thank | wake up |
    tickle | feed | wrap up | unpack | open | tell me about | write about | push over | knock down | step on |
    sit on | jump over | circle around | bend | blow on | boil | brush | calibrate to | carve | chase | check |
    chew | chop | click on | compare | confuse | cook | copy | criticise | damage | decorate | disassemble | dip |
    discuss | drill into | drown | explode | fold | freeze | grind | hammer | identify | illuminate | insult | kill |
    light up | listen to | make fun of | mark | mention | mend | nibble at | observe | order | pay for | peel | pet |
    pierce | praise | print | punch | read | remember | report on | rip | rub | search for a scratch on |
    shine a light on | shoot | shout at | shred | sing about | slap | slice | soak | split | spray | squash | stain |
    steal | sketch | sniff | swallow | swing | talk to | tap | tear up | test | tie up | topple | toss up | trace |
    vacuum | varnish | wave at | whisper to | wipe | wet | colour in | trade | upset | overturn | bump into
throw:
    throw | push | kick | toss | knock | fling | drop | hurl | sweep | roll | shove | chuck | flick
elsewhere:
    away | off the table | out of the window | on the floor | into the bin | at the wall | to the ground |
    in the rubbish | into the water | off the desk | at me | in the trash | over the edge | across the room
use:
    open | close | clean | wash | repair | paint | switch on | switch off | turn on | turn off | lock | unlock |
    sell | buy | break | polish | fill | empty | cut | cook | draw | read | photograph | fold | wipe | sweep | iron |
    feed | play | drive | park | plug in | charge | measure | count | describe
chore:
    stop | wait | wait a moment | pause | go home | go to sleep | turn left | turn right | go back | freeze |
    move up | move down | move your arm up | lower your arm | raise your arm | wave your hand | clap your hands |
    open the gripper | close the gripper | dance for me | jump | sit down | stand up | clean the table | bow |
    write a letter | cook dinner | make some tea | bake a cake | do the dishes | mow the lawn | do the laundry |
    play some music | play chess with me | read me a story | tell me a story | draw a circle | draw a picture |
    switch on the light | dim the lights | set an alarm | call a taxi | order a pizza | book a table | say hello |
    translate this | count to ten | add two and two | send an email | save the file | print the page |
    restart the computer | shut down | reboot | update the software | log out | show me the menu | run a test |
    check the battery | charge yourself | take a picture | take a break | take a seat | take your time |
    pour me a drink | peel the potatoes | slice the bread | stir the soup | wipe the floor | vacuum the carpet |
    walk the dog | feed the cat | drive to the station | go to the kitchen | come here | go away | follow me |
    give me a hand | give me five | hold my hand | look around | look up | look at me | be quiet | be careful |
    explain yourself | repeat that | undo that | start over | try again | think about it | help me | hurry up |
    sort the <noun>s by colour | count the <noun>s | build a tower | make a pile | knock over the tower |
    clean up this mess | tidy your room | wash your hands | brush your teeth | scratch your head | spin around |
    draw with the {} pen | paint it {} | paint the <thing> {} | colour it {} | dye the <thing> {} | make it {} |
    turn the light {} | wait for the {} light | press the {} button | follow the {} line | write in {}
chat:
    <saying> | <saying> | <saying> | the <thing> is <adjective> | the <thing> is {} | my <thing> is {} | I like {} |
    {} is my favourite colour | my favourite colour is {} | {} is a colour | I hate {} | {} is nice |
    she has {} <thing>s | he wore a {} <thing> | I have a {} <thing> | we saw a {} <thing> | all <thing>s are {} |
    {} <thing>s are <adjective> | the <thing>s turned {} | {} suits you | the {} team won | I am <adjective> |
    my <thing> is <adjective> | do you have a <thing> | where is my <thing> | what is a <thing> | I lost my <thing> |
    I saw a <thing> yesterday | I would like to buy a <thing> | the <thing> costs ten euros | {} is the new {}
saying:
    hello | hi | how are you | thank you | thanks a lot | what is your name | who are you | tell me a joke |
    the weather is nice today | it is raining | I am hungry | I am tired | who won the game | yes | no | ok | maybe |
    I see | what is the capital of France | how far is the moon | one two three | see you tomorrow | good night |
    goodbye | I do not understand | what did you say | what are you doing | are you a robot | can you hear me |
    do you understand me | this robot is expensive | my brother plays the guitar | I love you |
    she went to school by train | the price of bread has risen | it will rain in the afternoon | happy birthday |
    what can you do | where do you come from | that was great | well done | good job | that was wrong | sorry |
    I am bored | we are late for dinner | the meeting is at noon | my head hurts | life is hard | no idea |
    what is the meaning of life | how does this work | who made you | which day is it | is anybody there |
    the sun is shining | the children are playing outside | he works in an office | they live in London |
    the news was bad | I have a question | this is a test | testing | just kidding | of course | not now | later |
    a white christmas | black friday | the red cross | green tea | the yellow press | the blue danube |
    black coffee | a red herring | white noise | a green thumb | feeling blue | black magic | the red carpet |
    the white flag | a black sheep | the green party | yellow fever | the blue hour | red alert | a blue moon |
    black and white films | the dark side of the moon | the golden age | a golden opportunity | in the dark |
    it is getting dark | you look pale | red wine please | the sky is blue
    """
)
_HUED_THINGS: Final = frozenset(
    {"leaf", "milk", "grass", "sky", "tomato", "snowman", "frog", "rose", "sand", "oil", "lawn", "moon", "fire"}
)
"""Things that a colour may be called by, though no list has them."""
_THING_SHARE: Final = 0.4
_REFUSAL_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "other colour": "other-colour",
        "coloured thing": "coloured-thing",
        "no colour but": "adjective-only",
        "negation": "negation",
        "two at once": "pair",
        "no colour": "no-colour",
        "other thing": "other-thing",
        "other task": "task",
        "chatter": "chat",
        "question": "question",
        "told": "past",
    }
)
"""Kind, as in `phrases.known_refusals` where it is there, to the rule that draws it."""
_SHADES: Final = ("deep", "dark", "light", "pale", "very", "bright", "vivid", "plain", "rather", "somewhat", "nice")
RULES: Final[Rules] = MappingProxyType({**_REQUEST_RULES, **_REFUSAL_RULES})


def requests(target: str, count: int, seed: int, part: Part = Part.ALL) -> tuple[str, ...]:
    """`count` different sentences that ask for `target`, none of which judges.

    Raises:
        ConfigError: there is no such target.
    """
    words = phrases.known_words(target)
    random = _random(seed, target)
    return _collect(count, lambda: _sentence("ask", random, part, lambda: (_word(words, random),), (target,)))


def refusals(count: int, seed: int, part: Part = Part.ALL) -> Mapping[str, tuple[str, ...]]:
    """`count` different sentences of each kind that asks for none of the targets, none of which judges."""
    return {kind: _refusals(kind, count, _random(seed, kind), part) for kind in _REFUSAL_KINDS}


def words() -> frozenset[str]:
    """All that the grammar's sentences can have, but for words for colours."""
    text = " ".join(chain.from_iterable(RULES.values()))
    return frozenset(plain(_SLOT.sub(" ", text).replace("{0}", " ").replace("{1}", " ").replace("{}", " ")).split())


def is_kept_back(rule: str, alternative: str) -> bool:
    """Whether a trial encoder does not learn from it."""
    return rule in KEPT_RULES and zlib.crc32(alternative.encode()) % _KEPT_EVERY == 0


def _refusals(kind: str, count: int, random: np.random.Generator, part: Part) -> tuple[str, ...]:
    def colours() -> tuple[str, ...]:
        if kind == "other colour":
            return (_stranger(random, part),)
        first, second = random.choice(len(phrases.TARGETS), 2, replace=False)
        return tuple(_word(phrases.known_words(phrases.TARGETS[index]), random) for index in (first, second))

    return _collect(count, lambda: _sentence(_REFUSAL_KINDS[kind], random, part, colours, phrases.TARGETS))


def _collect(count: int, draw: Callable[[], str]) -> tuple[str, ...]:
    """Different sentences; an empty one was not to be had."""
    found: dict[str, None] = {}
    while len(found) < count:
        if text := draw():
            found[text] = None
    return tuple(found)


def _sentence(
    rule: str,
    random: np.random.Generator,
    part: Part,
    colours: Callable[[], tuple[str, ...]],
    targets: tuple[str, ...],
) -> str:
    """One sentence; empty if it has nothing kept back but should, or if the wording judges, whatever its colour."""
    wording, is_kept = _expand(rule, random, part)
    filled = wording.format(*colours()) if "{0}" in wording else _fill_each(wording, colours)
    named = {plain(wording.replace("{}", target).replace("{0}", target)) for target in targets}
    if (part is Part.KEPT and not is_kept) or (named | {plain(filled)}) & _judging():
        return ""
    return filled


def _fill_each(wording: str, colours: Callable[[], tuple[str, ...]]) -> str:
    while "{}" in wording:
        wording = wording.replace("{}", colours()[0], 1)
    return wording


def _expand(rule: str, random: np.random.Generator, part: Part) -> tuple[str, bool]:
    """An alternative with all slots filled, and whether one that can be kept back is in it."""
    text, is_kept = _alternative(rule, random, part)
    while slot := _SLOT.search(text):
        inner, is_inner_kept = _expand(slot.group(1), random, part)
        text, is_kept = text[: slot.start()] + inner + text[slot.end() :], is_kept or is_inner_kept
    return text, is_kept


def _alternative(rule: str, random: np.random.Generator, part: Part) -> tuple[str, bool]:
    choices = _alternatives(rule, part)
    chosen = choices[int(random.integers(len(choices)))]
    return chosen, is_kept_back(rule, chosen)


@cache
def _alternatives(rule: str, part: Part) -> tuple[str, ...]:
    """Those that may be drawn."""
    return tuple(text for text in RULES[rule] if part is not Part.LEARNT or not is_kept_back(rule, text))


def _word(words: tuple[str, ...], random: np.random.Generator) -> str:
    """A word for a colour: its name, the second, the name with a shade, or any."""
    draw = random.random()
    if draw < _NAME_SHARE:
        return words[0]
    if draw < _NAME_SHARE + _SECOND_SHARE:
        return words[1]
    if draw < _NAME_SHARE + _SECOND_SHARE + _SHADE_SHARE:
        shaded = f"{_SHADES[int(random.integers(len(_SHADES)))]} {words[0]}"
        return words[0] if shaded in _judging_words() else shaded
    return words[int(random.integers(len(words)))]


def _stranger(random: np.random.Generator, part: Part) -> str:
    """A colour that no cube has, or a thing in its place: a word that nobody knows for a colour must not be guessed."""
    if random.random() >= _THING_SHARE:
        return _alternative("stranger", random, part)[0]
    thing = _alternative("thing", random, part)[0]
    while thing in _hued():
        thing = _alternative("thing", random, part)[0]
    return thing if random.random() < _THING_SHARE else f"{thing}-coloured"


@cache
def _hued() -> frozenset[str]:
    """Things that are, or are part of, a word for a target's colour."""
    every = chain.from_iterable(phrases.known_words(target) for target in phrases.TARGETS)
    return _HUED_THINGS | frozenset(" ".join(plain(word) for word in every).replace("coloured", " ").split())


def _random(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


@cache
def _judging() -> frozenset[str]:
    """All sentences that judge."""
    kept = chain.from_iterable(phrases.unseen_refusals().values())
    asking = chain.from_iterable(phrases.unseen(target) for target in phrases.TARGETS)
    return frozenset(plain(text) for text in (*kept, *asking)) - {""}


@cache
def _judging_words() -> frozenset[str]:
    """The words for colours that judge."""
    return frozenset(chain.from_iterable(phrases.unseen_words(target) for target in phrases.TARGETS))
