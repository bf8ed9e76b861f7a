"""Items of three reporting checklists: what each asks for, in our words, and which topics of the records answer it.

- CLAIM, update 2024, 44 items: Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300. Its numbers differ from
  those of 2020.
- TRIPOD+AI, 27 items in 52 rows: Collins et al., BMJ 2024;385:e078378. D: only where a model is developed; E: only where
  one is evaluated.
- MI-CLAIM: Norgeot et al., Nature Medicine 2020;26:1320. Its items have no numbers, only parts; ours count within a part.

The wording of the guidelines is theirs; ours is a paraphrase. A report must cite the guideline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Name: TypeAlias = Literal["claim-2024", "tripod-ai", "mi-claim"]


@dataclass(frozen=True, slots=True)
class Item:
    """One item.

    Attributes:
        number: number as the guideline has it.
        asks: what it asks for.
        topics: topics of the records that answer it; none: authors write it.
        whole: whether these answer the item; otherwise they are a draft that a person completes.
    """

    number: str
    asks: str
    topics: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Guideline:
    """A checklist.

    Attributes:
        name: short name.
        title: title with its year.
        citation: source to cite.
        items: its items in order.
    """

    name: Name
    title: str
    citation: str
    items: tuple[Item, ...]


def _items(text: str) -> tuple[Item, ...]:
    """Rows ``number | asks | topics``; topics that end in ``!`` answer the item alone."""
    made = []
    for row in text.strip().splitlines():
        number, asks, topics = (part.strip() for part in row.split("|"))
        names = tuple(topics.removesuffix("!").split())
        made.append(Item(number, asks, names, topics.endswith("!")))
    return tuple(made)


CLAIM = Guideline(
    "claim-2024",
    "CLAIM, update 2024",
    "Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300",
    _items(
        """
        1  | title names AI and its kind | architecture
        2  | structured abstract with design, data, results | flow performance
        3  | background, current practice, role of the tool |
        4  | aims and hypotheses | protocol
        5  | prospective or retrospective |
        6  | goal: new model, feasibility, comparison | comparison
        7  | where data come from, links | data_sources
        8  | who was eligible, how chosen | selection
        9  | each step from file to network input | preparation!
        10 | subsets taken, and by whom | subsets
        11 | de-identification |
        12 | missing data and what was done | missing selection
        13 | acquisition: maker, protocol, resolution |
        14 | reference standard, replicable | fusion
        15 | why that standard |
        16 | who annotated, skill, training |
        17 | how the test set was annotated, tools | fusion
        18 | annotator variability, how settled | fusion
        19 | partitions: sizes, method, imbalance | partitions!
        20 | level at which partitions are disjoint | disjoint!
        21 | intended test size and its basis | size_basis
        22 | architecture in full | architecture
        23 | software and versions | software!
        24 | initial parameters | initial!
        25 | training: augmentation, hyper-parameters, convergence | training
        26 | how the final model was picked | model_choice!
        27 | ensembles |
        28 | metrics, comparison with others | measures comparison
        29 | uncertainty and tests | uncertainty comparison!
        30 | robustness or sensitivity | robustness
        31 | explainability and its check | explanation
        32 | internal testing, gap to training | internal
        33 | external testing, or why none |
        34 | trial registration |
        35 | numbers in and out, flow chart | flow selection!
        36 | demographics by partition |
        37 | performance by partition and subgroup | performance subgroups
        38 | accuracy with 95 % interval, imbalance | performance!
        39 | failures: confusion matrix, examples | failures
        40 | limitations |
        41 | implications, intended use |
        42 | full protocol | protocol
        43 | software, model, data available? | availability
        44 | funding |
        """
    ),
)

TRIPOD = Guideline(
    "tripod-ai",
    "TRIPOD+AI, 2024",
    "Collins et al., BMJ 2024;385:e078378",
    _items(
        """
        1    | title |
        2    | abstract, which has a checklist of its own |
        3a   | context |
        3b   | target people, purpose, users |
        3c   | known inequalities |
        4    | objectives: develop, evaluate or both | protocol
        5a   | data sources and how representative they are | data_sources
        5b   | dates of the data |
        6a   | setting, centres |
        6b   | eligibility | selection
        6c   | treatments |
        7    | preparation and quality checks, alike across groups? | preparation selection
        8a   | outcome and how it was determined | fusion
        8b   | assessors | fusion
        8c   | blinding |
        9a D | predictors, how chosen |
        9b   | predictors, defined: here the image | preparation
        9c   | assessors of predictors |
        10   | study size and why | flow size_basis
        11   | missing data | missing selection
        12a D | use of the data, partition | partitions disjoint
        12b D | handling of predictors | preparation
        12c D | model, building steps, tuning, internal check | architecture training model_choice
        12d  | differences between clusters (sites) |
        12e  | measures, plots, comparison | measures comparison
        12f E | updating, recalibration |
        12g E | how predictions were computed | availability software
        13   | handling of imbalance | imbalance
        14   | approach to fairness | subgroups
        15 D | output, thresholds and their origin | thresholds
        16   | development against evaluation data |
        17   | ethics |
        18a  | funding |
        18b  | conflicts of interest |
        18c  | protocol | protocol
        18d  | registration |
        18e  | data available? |
        18f  | code available? | software
        19   | patient and public involvement |
        20a  | flow of participants | flow selection!
        20b  | characteristics, events, missing | partitions
        20c E | development against evaluation distributions |
        21   | people and events in each analysis | partitions flow
        22 D | full model, restrictions | availability architecture
        23a  | performance with interval, subgroups | performance subgroups
        23b  | differences between clusters |
        24 E | result of updating |
        25   | interpretation and fairness |
        26   | limitations |
        27a D | poor or missing input in use |
        27b D | the user's part and skill |
        27c  | next steps |
        """
    ),
)

MI_CLAIM = Guideline(
    "mi-claim",
    "MI-CLAIM, 2020",
    "Norgeot et al., Nature Medicine 2020;26:1320",
    _items(
        """
        1.1 | clinical problem |
        1.2 | research question | protocol
        1.3 | characteristics of the cohorts | flow
        1.4 | are the cohorts representative? |
        1.5 | baseline that the model is compared with | comparison
        2.1 | origin and format of the data | data_sources
        2.2 | transformations before the model | preparation!
        2.3 | independence of training and test data, shown | disjoint!
        2.4 | models tried, and code | architecture software
        2.5 | structured or unstructured data | preparation
        4.1 | main metric and why | performance
        4.2 | clinical metric and why | thresholds
        4.3 | comparison with significance | comparison!
        5.1 | first examination technique: saliency | explanation
        5.2 | second examination technique: sensitivity analysis | robustness
        5.3 | relevance of the examination |
        5.4 | use on single cases |
        5.5 | reliability under shift | subgroups
        6.1 | tier of reproducibility | software availability
        """
    ),
)

GUIDELINES: dict[str, Guideline] = {one.name: one for one in (CLAIM, TRIPOD, MI_CLAIM)}
