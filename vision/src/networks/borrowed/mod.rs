//! Networks that are not ours: every image classifier of the crate `candle-transformers` that gives the right numbers,
//! behind one adapter, under timm's names and with timm's tensors, so that published files load as they are.
//!
//! The walk: [`Borrowed`] is a name in the `catalogue` of families; a family's file says how candle-transformers is
//! called, and how the tensors that it asks for are spelled in published files; a `Source` answers those questions from
//! weights, and remembers what was read and what was missing; what comes out is an [`Adapter`], which is a `Network`.
//!
//! Not here, because candle-transformers 0.11.1 gives other numbers than timm: `efficientvit_m*` (it leaves the
//! attention's biases out), `beit_*` and `hiera_*` (it takes GELU's approximation by tanh), `efficientnet_*` without `tf_`
//! (it pads as TensorFlow does), `mobileone_s0` (it leaves a branch out). Its `dinov2` modules have the same GELU; DINOv2 is
//! put together from the parts of its ViT instead. Its `resnet` and `vgg` are graphs of our own. CLIP, SigLIP and their like
//! compare pictures with texts and are no classifiers. `docs/networks.md` has the whole table.

mod adapter;
mod catalogue;
mod convmixer;
mod convnext;
mod efficientnet;
mod eva;
mod family;
mod fastvit;
mod mobilenet;
mod mobileone;
mod repvgg;
mod segformer;
mod source;
mod vit;

pub use catalogue::Borrowed;
pub(crate) use catalogue::listed;
