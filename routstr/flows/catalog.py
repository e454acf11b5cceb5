"""What is on sale."""

from collections.abc import Iterable

from routstr.core.pricing import Model
from routstr.errors import InvalidModel


class Catalog:
    """The models on sale, by id."""

    def __init__(self, models: Iterable[Model]) -> None:
        """Keep them in their given order."""
        self._models = {model.id: model for model in models}

    def find(self, model_id: str) -> Model:
        """The model of that id. Raises InvalidModel."""
        model = self._models.get(model_id)
        if model is None:
            raise InvalidModel(param="model")
        return model

    def all(self) -> tuple[Model, ...]:
        """Every model."""
        return tuple(self._models.values())
