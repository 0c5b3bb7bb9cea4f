"""Facts of the dataset: counts, paths, file names, columns and codes, each with its source. Pure; imports nothing.

"Data manual" is the dataset's own, with the name of its page; "export.m" and others are the authors' code
(cvnlab/nsddatapaper). A number that stands here stands nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# -- the experiment --------------------------------------------------------------------------------------------

SUBJECTS = range(1, 9)
"""Subject numbers. Source: data manual, "Behavioral data"."""
SESSIONS_OF_SUBJECT = {1: 40, 2: 40, 3: 32, 4: 30, 5: 40, 6: 32, 7: 40, 8: 30}
"""Scan sessions of each subject. Source: data manual, "Experiments"."""
MAX_SESSIONS = max(SESSIONS_OF_SUBJECT.values())
"""Most sessions that any subject has."""
SESSIONS_OF_ALL = min(SESSIONS_OF_SUBJECT.values())
"""Sessions that every subject took part in, from the first on."""
TRIALS_PER_SESSION = 750
"""Trials in a session of the core experiment. Source: data manual, "Experiments". Used where synthetic data are made;
a conversion takes the count from the files."""
RUNS_PER_SESSION = 12
"""Runs in a session. Source: data manual, "Experiments"."""
TRIALS_OF_ODD_RUN, TRIALS_OF_EVEN_RUN = 63, 62
"""Stimulus trials in runs 1, 3, ... and in runs 2, 4, ... Source: data manual, "Experiments"."""
SLOTS_PER_RUN = 75
"""Four-second slots of a run; those without a stimulus are blank. Source: data manual, "Experiments"."""
SECONDS_PER_TRIAL = 4
"""From one image to the next. Source: data manual, "Experiments"."""

# -- images ----------------------------------------------------------------------------------------------------

ALL_IMAGES = 73_000
"""Images of all subjects: 1,000 shared and 9,000 of each subject. Source: data manual, "Experiments"."""
IMAGES_PER_SUBJECT = 10_000
"""Images of one subject. Source: data manual, "Experiments"."""
SHARED_IMAGES = 1_000
"""10k ids up to this one are the images that all subjects see. Source: data manual, "Experiments"."""
SHOWINGS = 3
"""Times that an image is shown at most. Source: data manual, "Experiments"."""
MAX_EXPERIMENT_TRIALS = IMAGES_PER_SUBJECT * SHOWINGS
"""Trials of a whole experiment, 40 sessions: every image three times."""
IMAGE_SIZE, CHANNELS = 425, 3
"""Edge of an image in pixels, and its channels: red, green, blue. Source: public code that reads them."""

# -- names in files --------------------------------------------------------------------------------------------

BETAS_DATASET = "betas"
"""Name of the one dataset in a session file. Source: export.m."""
IMAGES_DATASET = "imgBrick"
"""Name of the one dataset in nsd_stimuli.hdf5. Source: public code that reads it."""
VOXEL_MM = {"func1pt8mm": 1.8, "func1mm": 1.0}
"""Edge of a voxel in mm for each volume space of a subject. Source: data manual, "Functional data (NSD)"."""
VOLUME_SECONDS = {"func1pt8mm": 4 / 3, "func1mm": 1.0}
"""Time from one fMRI volume to the next after preprocessing. Source: data manual, "Functional data (NSD)"."""
VOLUME_BETAS = ("betas_assumehrf", "betas_fithrf", "betas_fithrf_GLMdenoise_RR")
"""Preparations of the betas as volumes. Source: data manual, "Functional data (NSD)"."""
OTHER_EXPERIMENTS = {
    "restingbetas_": "resting runs",
    "nsdsyntheticbetas_": "the synthetic images (nsdsynthetic)",
    "nsdimagerybetas_": "the imagery experiment (nsdimagery)",
}
"""How names of betas folders of other experiments begin, and what these are. Their trials are not those of the trial
table. Source: data manual, "Functional data (NSD)", and export.m."""
HEMISPHERES = ("lh", "rh")
"""How names of files of the left and of the right hemisphere begin, before a point. Source: data manual, "ROIs"."""
VALID_FILE = re.compile(r"valid_session(\d+)\.nii(?:\.gz)?", re.IGNORECASE)
"""Names of the volumes of one session's valid voxels. Source: data manual, "Functional data (NSD)"."""
NIFTI_ENDINGS = (".nii.gz", ".nii")
"""Ends of the names of volumes."""
LABELS_ENDING = ".mgz.ctab"
"""End of the name of a file of label names. Source: data manual, "ROIs"."""
TEMPLATE_LABELS_ENDING = ".ctab"
"""The same for sets whose labels lie with the templates. Source: public code that reads MTL and thalamus."""

# -- regions ---------------------------------------------------------------------------------------------------

NOT_CORTEX, NO_LABEL = -1, 0
"""Codes of region volumes below the labels: a mask is > 0. Source: the authors' code."""


@dataclass(frozen=True, slots=True)
class RoiSet:
    """One set of regions. Left and right hemisphere have the same label numbers, but for ORIGIN_VOLUME."""

    name: str
    """As in the file name: "prf-visualrois"."""
    origin: str
    """Who made it, one of the ORIGIN_ words."""
    labels: tuple[str, ...]
    """Names of label 1 and up."""


ORIGIN_ATLAS = "atlas"
"""An atlas of other people's brains: its V1 is not this subject's."""
ORIGIN_FSAVERAGE = "fsaverage"
"""Drawn once, on fsaverage."""
ORIGIN_SUBJECT = "subject"
"""Drawn in each subject."""
ORIGIN_VOLUME = "volume"
"""Drawn in each subject's volume: coded 0 and up, without NOT_CORTEX; labels lie with the templates."""

# fmt: off
_KASTNER2015 = (
    "V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4", "VO1", "VO2", "PHC1", "PHC2", "TO2", "TO1", "LO2", "LO1", "V3B",
    "V3A", "IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5", "SPL1", "FEF",
)
_HCP_MMP1 = (
    "V1", "MST", "V6", "V2", "V3", "V4", "V8", "4", "3b", "FEF", "PEF", "55b", "V3A", "RSC", "POS2", "V7", "IPS1",
    "FFC", "V3B", "LO1", "LO2", "PIT", "MT", "A1", "PSL", "SFL", "PCV", "STV", "7Pm", "7m", "POS1", "23d", "v23ab",
    "d23ab", "31pv", "5m", "5mv", "23c", "5L", "24dd", "24dv", "7AL", "SCEF", "6ma", "7Am", "7PL", "7PC", "LIPv",
    "VIP", "MIP", "1", "2", "3a", "6d", "6mp", "6v", "p24pr", "33pr", "a24pr", "p32pr", "a24", "d32", "8BM", "p32",
    "10r", "47m", "8Av", "8Ad", "9m", "8BL", "9p", "10d", "8C", "44", "45", "47l", "a47r", "6r", "IFJa", "IFJp",
    "IFSp", "IFSa", "p9-46v", "46", "a9-46v", "9-46d", "9a", "10v", "a10p", "10pp", "11l", "13l", "OFC", "47s", "LIPd",
    "6a", "i6-8", "s6-8", "43", "OP4", "OP1", "OP2-3", "52", "RI", "PFcm", "PoI2", "TA2", "FOP4", "MI", "Pir", "AVI",
    "AAIC", "FOP1", "FOP3", "FOP2", "PFt", "AIP", "EC", "PreS", "H", "ProS", "PeEc", "STGa", "PBelt", "A5", "PHA1",
    "PHA3", "STSda", "STSdp", "STSvp", "TGd", "TE1a", "TE1p", "TE2a", "TF", "TE2p", "PHT", "PH", "TPOJ1", "TPOJ2",
    "TPOJ3", "DVT", "PGp", "IP2", "IP1", "IP0", "PFop", "PF", "PFm", "PGi", "PGs", "V6A", "VMV1", "VMV3", "PHA2",
    "V4t", "FST", "V3CD", "LO3", "VMV2", "31pd", "31a", "VVC", "25", "s32", "pOFC", "PoI1", "Ig", "FOP5", "p10p",
    "p47r", "TGv", "MBelt", "LBelt", "A4", "STSva", "TE1m", "PI", "a32pr", "p24",
)
# fmt: on

ROI_SETS = (
    RoiSet("nsdgeneral", ORIGIN_FSAVERAGE, ("nsdgeneral",)),
    RoiSet("prf-visualrois", ORIGIN_SUBJECT, ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4")),
    RoiSet("prf-eccrois", ORIGIN_SUBJECT, ("ecc0pt5", "ecc1", "ecc2", "ecc4", "ecc4+")),
    RoiSet("floc-faces", ORIGIN_SUBJECT, ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces")),
    RoiSet("floc-bodies", ORIGIN_SUBJECT, ("EBA", "FBA-1", "FBA-2", "mTL-bodies")),
    RoiSet("floc-places", ORIGIN_SUBJECT, ("OPA", "PPA", "RSC")),
    RoiSet("floc-words", ORIGIN_SUBJECT, ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words")),
    RoiSet(
        "streams",
        ORIGIN_FSAVERAGE,
        ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"),
    ),
    RoiSet("Kastner2015", ORIGIN_ATLAS, _KASTNER2015),
    RoiSet("HCP_MMP1", ORIGIN_ATLAS, _HCP_MMP1),
    RoiSet("corticalsulc", ORIGIN_FSAVERAGE, tuple(f"sulc-{number}" for number in range(1, 29))),
    RoiSet("MTL", ORIGIN_VOLUME, ("ERC", "area35", "area36", "PHC", "Sub", "CA1", "CA2", "CA3", "DG", "HT")),
    RoiSet("thalamus", ORIGIN_VOLUME, ("LGN", "SC", "vPul", "dlPul", "dmPul")),
)
"""Sets of regions of a subject, with the names of their labels. Source: data manual, "ROIs"; for the atlases Wang et
al. 2015 and Glasser et al. 2016; for the parts of MTL Berron et al. 2017. Their order in MTL and thalamus, and the
names in corticalsulc, which has 28 labels, are ours: nothing reads them but the simulator."""
ATLASES = tuple(roi.name for roi in ROI_SETS if roi.origin == ORIGIN_ATLAS)
"""Names of the sets that are atlases."""
SETS_OF_TEMPLATES = tuple(roi.name for roi in ROI_SETS if roi.origin == ORIGIN_VOLUME)
"""Sets whose label names lie with the templates. Source: public code that reads them."""

# -- the trial table -------------------------------------------------------------------------------------------

RESPONSE_COLUMNS = (
    *("SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID", "TIME", "ISOLD", "ISCORRECT", "RT", "CHANGEMIND"),
    *("MEMORYRECENT", "MEMORYFIRST", "ISOLDCURRENT", "ISCORRECTCURRENT", "TOTAL1", "TOTAL2", "BUTTON", "MISSINGDATA"),
)
"""Columns of responses.tsv in file order. Source: data manual, "Behavioral data"."""
COLUMN_RANGES = {
    "SUBJECT": (SUBJECTS[0], SUBJECTS[-1]),
    "SESSION": (1, MAX_SESSIONS),
    "RUN": (1, RUNS_PER_SESSION),
    "TRIAL": (1, 127),
    "73KID": (1, ALL_IMAGES),
    "10KID": (1, IMAGES_PER_SUBJECT),
    "ISOLD": (0, 1),
    "MISSINGDATA": (0, 1),
}
"""Columns of whole numbers that are never NaN, their least and largest value. Source: data manual, "Behavioral data";
TRIAL ends at 63 there, and here where the store's int8 does."""
COLUMNS_WITH_NAN = (
    *("ISCORRECT", "RT", "CHANGEMIND", "MEMORYRECENT", "MEMORYFIRST", "ISOLDCURRENT", "ISCORRECTCURRENT"),
    *("TOTAL1", "TOTAL2", "BUTTON"),
)
"""Columns that are NaN where nothing was pressed, recorded or shown before. Source: data manual, "Behavioral data"."""
BUTTON_NEW, BUTTON_OLD = 1, 2
"""Buttons for "never seen before" and "seen before". Source: data manual, "Behavioral data"."""

# -- the tree of files -----------------------------------------------------------------------------------------


def find_subject_name(subject: int) -> str:
    """Name of a subject's folders: "subj01"."""
    return f"subj{subject:02d}"


@dataclass(frozen=True, slots=True)
class NsdPaths:
    """Where the dataset keeps its files below a root that stands for its bucket. Touches nothing.

    Source: data manual, "Functional data (NSD)", "ROIs", "Behavioral data", "Experiments". The only place of them.
    """

    root: Path
    """The folder that holds nsddata, nsddata_betas, nsddata_stimuli."""
    subject: int = 1
    """Subject, from 1."""
    space: str = "func1pt8mm"
    """Folder of the space: func1pt8mm, func1mm, nativesurface, ..."""
    betas: str = "betas_fithrf_GLMdenoise_RR"
    """Folder of the preparation."""

    @property
    def betas_folder(self) -> Path:
        """Folder of the session files."""
        return self.root / "nsddata_betas/ppdata" / find_subject_name(self.subject) / self.space / self.betas

    def session_file(self, session: int, hemisphere: str = "") -> Path:
        """A session file; *hemisphere* "lh" or "rh" on surfaces."""
        return self.betas_folder / f"{hemisphere and hemisphere + '.'}betas_session{session:02d}.hdf5"

    @property
    def ncsnr(self) -> Path:
        """The noise-ceiling signal-to-noise ratio of these betas, float32, NaN where it is not defined."""
        return self.betas_folder / "ncsnr.nii.gz"

    @property
    def subject_folder(self) -> Path:
        """What belongs to the subject and is no betas."""
        return self.root / "nsddata/ppdata" / find_subject_name(self.subject)

    @property
    def volumes(self) -> Path:
        """Volumes of the subject in this space."""
        return self.subject_folder / self.space

    @property
    def brainmask(self) -> Path:
        """The liberal mask of the brain."""
        return self.volumes / "brainmask.nii.gz"

    def valid(self, session: int) -> Path:
        """Voxels with data in *session*; of MNI beside the betas."""
        folder = self.betas_folder if self.space == "MNI" else self.volumes
        return folder / f"valid_session{session:02d}.nii.gz"

    @property
    def valid_fraction(self) -> Path:
        """Part of the sessions in which each voxel has data, float32."""
        return self.volumes / "valid.nii.gz"

    @property
    def rois(self) -> Path:
        """Folder of the region volumes."""
        return self.volumes / "roi"

    def roi(self, name: str, hemisphere: str = "") -> Path:
        """A region volume; *hemisphere* "lh" or "rh", empty for the whole brain."""
        return self.rois / f"{hemisphere and hemisphere + '.'}{name}.nii.gz"

    @property
    def label_folders(self) -> tuple[Path, Path]:
        """Folders of label names: the subject's, and fsaverage's."""
        folder = self.root / "nsddata/freesurfer"
        return folder / find_subject_name(self.subject) / "label", folder / "fsaverage/label"

    @property
    def templates(self) -> Path:
        """Folder of templates, and of the label names of SETS_OF_TEMPLATES."""
        return self.root / "nsddata/templates"

    def labels(self, roi: RoiSet) -> Path:
        """The file of the label names of *roi*."""
        if roi.origin == ORIGIN_VOLUME:
            return self.templates / (roi.name + TEMPLATE_LABELS_ENDING)
        own, common = self.label_folders
        return (own if roi.origin == ORIGIN_SUBJECT else common) / (roi.name + LABELS_ENDING)

    @property
    def trial_table(self) -> Path:
        """The trial table of the subject."""
        return self.subject_folder / "behav/responses.tsv"

    @property
    def expdesign(self) -> Path:
        """The design of the experiment, the same for all subjects."""
        return self.root / "nsddata/experiments/nsd/nsd_expdesign.mat"

    @property
    def stim_info(self) -> Path:
        """The table of all images."""
        return self.root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"

    @property
    def stimuli(self) -> Path:
        """The images of all subjects."""
        return self.root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"


def locate_session_file(path: Path) -> NsdPaths | None:
    """The dataset's paths around the session file *path*; None where it does not lie at its own place in a root."""
    for folder in (path.absolute().parent, path.resolve().parent):
        match = re.fullmatch(r"subj(\d\d)", folder.parent.parent.name)
        if match and folder.parts[-5:-3] == ("nsddata_betas", "ppdata"):
            return NsdPaths(folder.parents[4], int(match[1]), folder.parent.name, folder.name)
    return None
