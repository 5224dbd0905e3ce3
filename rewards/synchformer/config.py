"""Sizes of a Synchformer and of its front ends. The defaults are the published ones (docs/upstream/synchformer.md)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SynchformerConfig:
    """Sizes of the network and its front ends; every other size is a property of these.

    Raises ValueError for sizes that do not go together.
    """

    # Inputs
    fps: int = 25  # frames per second that clips are brought to
    sample_rate: int = 16_000  # Hz
    frames_per_segment: int = 16
    segment_hop: int = 8  # frames between the starts of two segments
    image_size: int = 224  # pixels, square
    n_fft: int = 1024
    window_length: int = 400  # samples of the Hann window, centred in n_fft
    hop_length: int = 160  # samples
    num_mels: int = 128
    mel_frames: int = 66  # of a segment, as the network takes them; one more than the spectrogram has
    mel_mean: float = -4.2677393
    mel_std: float = 4.5689974

    # Visual encoder
    tubelet: int = 2  # frames that one token spans
    patch: int = 16  # pixels
    visual_width: int = 768
    visual_depth: int = 12
    visual_heads: int = 12

    # Audio encoder
    audio_patch: int = 16  # mel bands, and mel frames
    audio_stride: int = 10
    audio_width: int = 768
    audio_depth: int = 12
    audio_heads: int = 12

    # Fusion
    num_segments: int = 14  # of a window
    fusion_width: int = 768
    fusion_depth: int = 3
    fusion_heads: int = 8
    num_offsets: int = 21
    max_offset_s: float = 2.0  # the offsets are an even grid from -max_offset_s to max_offset_s

    mlp_ratio: int = 4  # of all three parts

    def __post_init__(self) -> None:
        small = [name for name, value in vars(self).items() if name != "mel_mean" and value <= 0]
        if small:
            raise ValueError(f"{small[0]} is {getattr(self, small[0])}, but must be positive.")
        for name, divisor in (
            ("visual_width", "visual_heads"),
            ("audio_width", "audio_heads"),
            ("fusion_width", "fusion_heads"),
            ("image_size", "patch"),
            ("frames_per_segment", "tubelet"),
        ):
            value, by = getattr(self, name), getattr(self, divisor)
            if value % by:
                raise ValueError(f"{name}={value} is no multiple of {divisor}={by}. Change one of the two.")
        if self.num_offsets < 2:
            raise ValueError(f"num_offsets={self.num_offsets} is no grid. Give at least 2.")
        self._check_sound()

    def _check_sound(self) -> None:
        if self.segment_hop * self.sample_rate % self.fps or self.frames_per_segment * self.sample_rate % self.fps:
            raise ValueError(
                f"Segments of {self.frames_per_segment} frames every {self.segment_hop} at fps={self.fps} are no whole "
                f"number of samples at sample_rate={self.sample_rate}. Change fps or sample_rate."
            )
        if self.mel_frames < self.spectrogram_frames:
            raise ValueError(
                f"mel_frames={self.mel_frames} is less than the {self.spectrogram_frames} frames of a segment's "
                "spectrogram. Raise mel_frames or hop_length."
            )

    @property
    def segment_samples(self) -> int:
        return self.frames_per_segment * self.sample_rate // self.fps

    @property
    def segment_hop_samples(self) -> int:
        return self.segment_hop * self.sample_rate // self.fps

    @property
    def spectrogram_frames(self) -> int:
        """Mel frames of a segment before it is padded to `mel_frames`."""
        return self.segment_samples // self.hop_length + 1

    @property
    def tubes(self) -> int:
        """Visual tokens over time; the visual vectors of a segment."""
        return self.frames_per_segment // self.tubelet

    @property
    def patches(self) -> int:
        """Visual tokens of one instant."""
        return (self.image_size // self.patch) ** 2

    @property
    def audio_bands(self) -> int:
        """Audio tokens over frequency."""
        return (self.num_mels - self.audio_patch) // self.audio_stride + 1

    @property
    def audio_steps(self) -> int:
        """Audio tokens over time; the audio vectors of a segment."""
        return (self.mel_frames - self.audio_patch) // self.audio_stride + 1

    @property
    def fusion_tokens(self) -> int:
        """Positions of the fusion part: its two own tokens, and all vectors of a window."""
        return 2 + self.num_segments * (self.tubes + self.audio_steps)

    def count_segments(self, num_frames: int) -> int:
        """Segments of a clip of so many frames at `fps`; at least one, which is padded where the clip is shorter."""
        return max(1, (num_frames - self.frames_per_segment) // self.segment_hop + 1)

    def frames_of(self, num_segments: int) -> int:
        """Frames that so many overlapping segments span."""
        return self.frames_per_segment + (num_segments - 1) * self.segment_hop

    def samples_of(self, num_segments: int) -> int:
        """Samples that so many overlapping segments span."""
        return self.segment_samples + (num_segments - 1) * self.segment_hop_samples
