//! The networks, one file each, to be read beside its paper. Each has one function that puts its graph together;
//! names of layers are the prefixes of the tensors in the published weights. `borrowed/` holds those that are another
//! crate's.

pub(crate) mod borrowed;
pub(crate) mod faster_rcnn;
pub(crate) mod googlenet;
pub(crate) mod googlenet_bn;
pub(crate) mod inception;
pub(crate) mod lenet;
pub(crate) mod mobilenet;
pub(crate) mod mobilenet_v1;
pub(crate) mod mobilenet_v3;
pub(crate) mod resnet;
pub(crate) mod squeezenet;
pub(crate) mod ssd;
pub(crate) mod ultraface;
pub(crate) mod vgg;
pub(crate) mod yolov8;
pub(crate) mod yolox;
