"""Real images: a flow that is asked for a digit draws that digit."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import everymode as em
from everymode.metrics import wilson_interval
from everymode.networks import Transformer
from everymode.randomness import new_generator
from everymode.spaces import ImageSpace, LabelSpace
from everymode.training import TrainingSettings, train

DRAWS_A_DIGIT = 100


def test_drawn_digits_are_the_digits_asked_for():
    """A classifier trained on real digits agrees with the asked label on at least .9 of 1000 draws.

    And they are no copies of one prototype a class: their variance within a class, which regression would answer
    with 0, is near that of the real digits.
    """
    pixels, labels = load_digits(return_X_y=True)
    known, unseen, known_labels, unseen_labels = train_test_split(
        pixels, labels, test_size=0.25, random_state=0, stratify=labels
    )
    images = known.reshape(-1, 1, 8, 8)
    y_space, x_space = ImageSpace.fit(images), LabelSpace.fit(known_labels)
    family = em.FlowMatching().build(y_space, x_space, width=64, depth=4)
    assert isinstance(family.network, Transformer)  # what `default_for` gives for images
    settings = TrainingSettings(steps=600, batch_size=128, learning_rate=3e-3, precision="float32")
    for _ in train(family, y_space.encode(images), x_space.encode(known_labels), settings=settings):
        pass

    asked = np.repeat(np.arange(10), DRAWS_A_DIGIT)
    with torch.inference_mode():
        draws = family.eval().sample(x_space.encode(asked), generator=new_generator(0))
    drawn = y_space.decode(draws).reshape(len(asked), 64)

    classifier = SVC(C=10.0, gamma=0.001, random_state=0).fit(known, known_labels)
    agreement = np.mean(classifier.predict(drawn) == asked)
    low, high = wilson_interval(round(agreement * len(asked)), len(asked))
    real = classifier.score(unseen, unseen_labels)
    print(f"agreement {agreement:.3f} [{low:.3f}, {high:.3f}], real digits {real:.3f}")
    assert agreement >= 0.9, (
        f"the classifier agrees with the label on {agreement:.3f} [{low:.3f}, {high:.3f}] of {len(asked)} draws, "
        f"and on {real:.3f} of {len(unseen)} real digits"
    )

    def variance_within(values, classes):
        return np.mean([values[classes == digit].var(axis=0).sum() for digit in range(10)])

    ratio = variance_within(drawn, asked) / variance_within(unseen, unseen_labels)
    print(f"variance within a class, drawn over real: {ratio:.3f}")
    assert 0.75 < ratio < 1.25
