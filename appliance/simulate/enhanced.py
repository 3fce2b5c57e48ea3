"""A CT phantom as one multi-frame object (Enhanced CT Image Storage, PS3.3 A.38)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, EnhancedCTImageStorage, ExplicitVRLittleEndian

from appliance.simulate.dicomize import REGIONS, base, code, finish
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Study


def enhanced_ct(
    phantom: Phantom, study: Study, *, syntax: UID = ExplicitVRLittleEndian, series_number: int = 2
) -> Dataset:
    """All slices of a CT phantom as frames of one Enhanced CT, position per frame, the rest shared."""
    ds = base(study, EnhancedCTImageStorage, "CT", series_number, 1)
    head = phantom.kind == "head_ct"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.SeriesDescription = "Enhanced CT"
    ds.PatientPosition = "HFS"
    ds.BodyPartExamined = "HEAD" if head else "CHEST"
    ds.FrameOfReferenceUID = study.uid("frame of reference")
    ds.PositionReferenceIndicator = ""
    moment = f"{study.order.study_date}{study.order.study_time}"
    ds.AcquisitionDateTime = moment
    ds.AcquisitionDuration = 10.0
    ds.AcquisitionNumber = 1
    ds.ContentQualification = "RESEARCH"
    ds.MultienergyCTAcquisition = "NO"
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.BurnedInAnnotation, ds.LossyImageCompression, ds.PresentationLUTShape = "NO", "00", "IDENTITY"
    ds.AcquisitionContextSequence = []
    ds.DimensionOrganizationSequence = [Dataset()]
    ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = study.uid("dimensions")
    ds.DimensionIndexSequence = [_index(study, 0x00209056), _index(study, 0x00209057)]
    ds.SharedFunctionalGroupsSequence = [_shared(phantom, study, head=head)]
    ds.PerFrameFunctionalGroupsSequence = [
        _frame(position, number, moment) for number, position in enumerate(phantom.positions_mm, 1)
    ]
    ds.NumberOfFrames = len(phantom.positions_mm)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = phantom.pixels.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = (np.clip(phantom.pixels, -1024, 3071).astype(np.int32) + 1024).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return finish(ds, study, syntax)


def _index(study: Study, tag: int) -> Dataset:
    """One dimension (PS3.3 C.7.6.17): first the stack, then the place in the stack."""
    item = Dataset()
    item.DimensionOrganizationUID = study.uid("dimensions")
    item.DimensionIndexPointer = tag
    item.FunctionalGroupPointer = 0x00209111
    return item


def _item(**values: object) -> list[Dataset]:
    """A sequence of one item with these attributes."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


def _shared(phantom: Phantom, study: Study, *, head: bool) -> Dataset:
    groups = Dataset()
    groups.PixelMeasuresSequence = _item(PixelSpacing=list(phantom.spacing_mm), SliceThickness=phantom.thickness_mm)
    groups.PlaneOrientationSequence = _item(ImageOrientationPatient=list(phantom.orientation))
    value, meaning = REGIONS["HEAD" if head else "CHEST"]
    region = code(value, "SCT", meaning)
    groups.FrameAnatomySequence = _item(FrameLaterality="U", AnatomicRegionSequence=[region])
    groups.FrameVOILUTSequence = _item(WindowCenter="40", WindowWidth="80" if head else "400")
    groups.PixelValueTransformationSequence = _item(RescaleIntercept="-1024", RescaleSlope="1", RescaleType="HU")
    groups.CTImageFrameTypeSequence = _item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    groups.CTAcquisitionTypeSequence = _item(AcquisitionType="SEQUENCED", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")
    groups.CTAcquisitionDetailsSequence = _item(
        RotationDirection="CW",
        RevolutionTime=1.0,
        SingleCollimationWidth=0.625,
        TotalCollimationWidth=20.0,
        TableHeight=150.0,
        GantryDetectorTilt=0.0,
        DataCollectionDiameter=500.0,
    )
    groups.CTTableDynamicsSequence = _item(TableSpeed=0.0)
    groups.CTReconstructionSequence = _item(
        ReconstructionAlgorithm="FILTER_BACK_PROJ",
        ConvolutionKernel="H31s",
        ConvolutionKernelGroup="BRAIN" if head else "SOFT_TISSUE",
        ReconstructionDiameter=phantom.spacing_mm[0] * phantom.pixels.shape[1],
        ReconstructionPixelSpacing=list(phantom.spacing_mm),
        ReconstructionAngle=360.0,
        ImageFilter="NONE",
    )
    groups.CTExposureSequence = _item(
        ExposureTimeInms=1000.0,
        XRayTubeCurrentInmA=250.0,
        ExposureInmAs=250.0,
        ExposureModulationType="NONE",
        CTDIvol=45.0,
        CTDIPhantomTypeCodeSequence=[code("113690", "DCM", "IEC Head Dosimetry Phantom")],
    )
    groups.CTXRayDetailsSequence = _item(
        KVP="120",
        FocalSpots=[1.0],
        FilterType="FLAT",
        FilterMaterial="ALUMINUM",
        CalciumScoringMassFactorPatient=1.0,
        EnergyWeightingFactor=1.0,
    )
    groups.CTGeometrySequence = _item(DistanceSourceToDetector=1085.0, DistanceSourceToDataCollectionCenter=595.0)
    groups.IrradiationEventIdentificationSequence = _item(IrradiationEventUID=study.uid("irradiation event"))
    return groups


def _frame(position: tuple[float, float, float], number: int, moment: str) -> Dataset:
    groups = Dataset()
    groups.FrameContentSequence = _item(
        FrameAcquisitionNumber=number,
        FrameReferenceDateTime=moment,
        FrameAcquisitionDateTime=moment,
        FrameAcquisitionDuration=1000.0,
        StackID="1",
        InStackPositionNumber=number,
        DimensionIndexValues=[1, number],
    )
    groups.PlanePositionSequence = _item(ImagePositionPatient=list(position))
    groups.CTPositionSequence = _item(
        TablePosition=position[2],
        DataCollectionCenterPatient=[0.0, 0.0, position[2]],
        ReconstructionTargetCenterPatient=[0.0, 0.0, position[2]],
    )
    return groups
