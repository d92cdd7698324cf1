"""A callback that records how far the weights have moved."""


class Distance:
    """Records the distance of the weights from the initial ones after each epoch, and stops beyond a limit."""

    def __init__(self, limit: float):
        self.limit = limit
        self.first: dict = {}

    def fit_start(self, session):
        if not self.first:
            self.first = {name: w.detach().clone() for name, w in session.learner.weights().items()}

    def epoch_end(self, session, metrics):
        weights = session.learner.weights()
        squares = [(weights[name] - w.to(weights[name].device)).square().sum() for name, w in self.first.items()]
        distance = float(sum(squares)) ** 0.5
        session.run.append("distance.jsonl", {"epoch": session.epoch, "distance": distance})
        session.run.board.scalars({"distance": distance}, session.step)
        if distance > self.limit:
            session.stop_reason = f"the weights have moved {distance:.1f}"

    def state_dict(self):
        return {"first": self.first}

    def load_state_dict(self, state):
        self.first = state["first"]
