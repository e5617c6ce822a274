"""Policies of sb3-contrib for trials, which need the extra rl2: with a memory, without one, and with a shared LSTM."""

from typing import Any

from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from torch import Tensor, cat, empty, nn, no_grad, zeros, zeros_like


def set_chrono(lstm: nn.LSTM, steps: int) -> None:
    """Sets the biases so that the LSTM can remember over this many steps (Tallec, Ollivier 2018, equation 16).

    Its forget gates get biases log U(1, steps - 1), its input gates the opposite ones, and all others are 0: without
    input, a cell fades within 1 to `steps` steps. PyTorch's biases are near 0, with which it halves in every step.
    """
    biases = empty(lstm.hidden_size).uniform_(1, steps - 1).log()
    parameters = dict(lstm.named_parameters())
    with no_grad():
        parameters["bias_hh_l0"].zero_()
        of_gates = cat([-biases, biases, zeros(2 * lstm.hidden_size)])  # input, forget, candidate, output
        parameters["bias_ih_l0"].copy_(of_gates)


class _LSTMPolicy(RecurrentActorCriticPolicy):
    """sb3-contrib's policy, whose LSTM may be shared and initialised for long memories.

    Both losses train a shared LSTM. In sb3-contrib, that of the values does not.

    Args:
        args: As for sb3-contrib's policy.
        chrono: Steps of chrono initialisation, or None for PyTorch's; see `set_chrono`.
        kwargs: As for sb3-contrib's policy.
    """

    def __init__(self, *args: Any, chrono: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for lstm in (self.lstm_actor, self.lstm_critic):
            if chrono is not None and lstm is not None:
                set_chrono(lstm, chrono)

    def evaluate_actions(  # type: ignore[override]  # of Stable-Baselines3, as sb3-contrib's own is
        self, obs: Tensor, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not self.shared_lstm:
            return super().evaluate_actions(obs, actions, lstm_states, episode_starts)
        features: Any = self.extract_features(obs)
        states: Any = lstm_states.pi
        latent, _ = self._process_sequence(features, states, episode_starts, self.lstm_actor)
        chosen = self._get_action_dist_from_latent(latent)
        entropy: Any = chosen.entropy()
        return self.value_net(latent), chosen.log_prob(actions), entropy


class TrialPolicy(_LSTMPolicy):
    """A policy with memory, which runs each sequence in one call of the LSTM, not step by step as sb3-contrib does."""

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: nn.LSTM
    ) -> tuple[Tensor, Any]:
        # sb3-contrib loops over the steps where a trial begins within a sequence. In its updates trials begin with
        # their sequences, so it is enough to reset the first states.
        starts = episode_starts.reshape(lstm_states[0].shape[1], -1)
        if not starts[:, 1:].any():
            kept = 1.0 - starts[:, 0].reshape(1, -1, 1)
            lstm_states = (lstm_states[0] * kept, lstm_states[1] * kept)
            episode_starts = zeros_like(episode_starts)
        return RecurrentActorCriticPolicy._process_sequence(features, lstm_states, episode_starts, lstm)


class ReactivePolicy(_LSTMPolicy):
    """The same network without memory: its hidden state is 0 at every step."""

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], _: Tensor, lstm: nn.LSTM
    ) -> tuple[Tensor, Any]:
        return lstm(features[None])[0][0], lstm_states
