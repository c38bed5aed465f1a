"""Gets every answer: from the command line, from a person at a terminal, or from the proposals."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.prompt import Prompt
from rich.table import Table

from evergreen.model.exporting.questions import Question, Robot, open_questions
from vla_core.checkpoint import Checkpoint
from vla_core.errors import ConfigError


def answer_all(
    info: Checkpoint,
    robot: Robot,
    given: Mapping[str, str],
    extent: float | None,
    *,
    accept: bool,
    console: Console | None,
) -> dict[str, str]:
    """Every answer that the manifest needs.

    Args:
        info: the checkpoint.
        robot: what there is to map it to.
        given: answers from the command line.
        extent: largest joint value of the training data.
        accept: take every proposal without asking.
        console: where a person answers; None where there is nobody.

    Raises:
        ConfigError: nobody can be asked and something is missing; it names the options.
    """
    answers = dict(given)
    while asked := open_questions(info, robot, answers, extent):
        if accept:
            missing = [question for question in asked if question.proposal is None]
        elif console is None:
            missing = [question for question in asked if not question.may_default]
        else:
            answers[asked[0].key] = _ask(console, asked[0])
            continue
        if missing:
            raise ConfigError(_complaint(missing, accept=accept))
        answers |= {question.key: question.proposal or "" for question in asked}
    return answers


def show(console: Console, info: Checkpoint, extent: float | None) -> None:
    """What the checkpoint says of itself, for the person who answers."""
    table = Table(title=str(info.folder), show_header=False, title_justify="left")
    table.add_row("type", info.policy_type)
    for feature, size in info.cameras.items():
        table.add_row("sees", f"{feature}, {size.width}x{size.height} px")
    table.add_row("state, action", f"{info.state_dim} and {info.action_dim} numbers")
    table.add_row("looks back", f"{info.n_obs_steps} observation(s)")
    table.add_row("answers", f"{info.chunk_size} action(s) at once")
    if extent is not None:
        table.add_row("joint values", f"up to {extent:.4g} in its training data")
    console.print(table)


def _ask(console: Console, question: Question) -> str:
    """One answer; an empty one takes the proposal."""
    choices = list(question.choices) or None
    if question.proposal is None:
        answer = ""
        while not answer:
            answer = Prompt.ask(question.text, console=console, choices=choices).strip()
        return answer
    return Prompt.ask(question.text, console=console, choices=choices, default=question.proposal).strip()


def _complaint(missing: list[Question], *, accept: bool) -> str:
    wanted = "; ".join(
        question.option + (f" (proposed: {question.proposal})" if question.proposal else "") for question in missing
    )
    rest = "" if accept else ", or --yes to take what is proposed, or run it at a terminal to be asked"
    return f"not given: {wanted}. Give it{rest}"
