"""A generative adversarial network, and a callback that draws what it generates."""

import io

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import softplus

from dl_lab.training.base_learner import BaseLearner
from dl_lab.types import Ratio


class Gan(BaseLearner):
    def __init__(self, n_features: int, noise: int, width: int, lr: float):
        self.generator = nn.Sequential(nn.Linear(noise, width), nn.ReLU(), nn.Linear(width, n_features), nn.Sigmoid())
        self.discriminator = nn.Sequential(nn.Linear(n_features, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))
        self.generator_adam = torch.optim.Adam(self.generator.parameters(), lr, betas=(0.5, 0.999))
        self.discriminator_adam = torch.optim.Adam(self.discriminator.parameters(), lr, betas=(0.5, 0.999))
        self.noise = noise

    def update(self, batch, weight: float = 1.0):
        real = batch.x.flatten(1)
        fake = self.generator(torch.randn(len(real), self.noise, device=self.device))
        loss = softplus(-self.discriminator(real)).mean() + softplus(self.discriminator(fake.detach())).mean()
        self.discriminator_adam.zero_grad()
        loss.backward()
        self.discriminator_adam.step()
        deceived = softplus(-self.discriminator(fake)).mean()
        self.generator_adam.zero_grad()
        deceived.backward()
        self.generator_adam.step()
        n = len(real)
        return {"loss": Ratio(loss.detach() * n, n), "generator_loss": Ratio(deceived.detach() * n, n)}

    @torch.no_grad()
    def evaluate(self, batch):
        believed = self.discriminator(batch.x.flatten(1)) > 0
        return {"loss": Ratio((~believed).sum(), len(believed)), "believed": Ratio(believed.sum(), len(believed))}


class Samples:
    """Draws 4 x 8 generated digits after each epoch, always of the same noise."""

    def fit_start(self, session):
        self.z = torch.randn(32, session.learner.noise, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def epoch_end(self, session, metrics):
        digits: Tensor = session.learner.generator(self.z.to(session.learner.device)).view(4, 8, 8, 8)
        sheet = digits.permute(0, 2, 1, 3).reshape(32, 64).mul(255).byte().cpu().numpy()
        file = io.BytesIO()
        Image.fromarray(sheet).resize((512, 256), Image.Resampling.NEAREST).save(file, format="PNG")
        session.run.board.image("samples", file.getvalue(), session.step)
