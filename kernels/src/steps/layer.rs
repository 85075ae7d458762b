//! A convolution as the plan hands it to those that can compute it.

use crate::graph::Convolution;
use crate::inner::finish::Finish;
use crate::inner::table::Kernels;
use crate::steps::channels::Channels;
use crate::steps::view::View;

/// A convolution with all that it reads and writes.
#[derive(Debug, Clone)]
pub(crate) struct Layer<'w> {
    pub(crate) convolution: Convolution<'w>,
    /// Blocked, or planar: then there is one channel in each of its blocks, and a pixel is one element.
    pub(crate) from: View,
    pub(crate) channels: Channels,
    pub(crate) to: View,
    /// What is added to the result.
    pub(crate) other: Option<View>,
    pub(crate) finish: Finish,
    pub(crate) kernels: &'static Kernels,
}

impl Layer<'_> {
    /// Input channels of a group.
    pub(crate) fn group_inputs(&self) -> usize {
        self.inputs() / self.convolution.groups
    }

    pub(crate) fn inputs(&self) -> usize {
        if self.is_planar() { self.from.blocks } else { self.channels.places().len() }
    }

    pub(crate) fn is_planar(&self) -> bool {
        self.from.pixel == 1
    }

    /// Blocks of output channels.
    pub(crate) fn output_blocks(&self) -> usize {
        self.convolution.outputs.div_ceil(self.kernels.lanes)
    }

    /// Biases, zeros behind the last.
    pub(crate) fn bias(&self) -> Vec<f32> {
        let mut bias = self.convolution.bias.map_or_else(Vec::new, <[f32]>::to_vec);
        bias.resize(self.output_blocks() * self.kernels.lanes, 0.0);
        bias
    }

    /// Rows and columns that windows cover, from the first row of the padding on.
    pub(crate) fn reach(&self) -> [usize; 2] {
        let window = self.convolution.window;
        let [rows, columns] = window.span();
        [(self.to.height - 1) * window.stride[0] + rows, (self.to.width - 1) * window.stride[1] + columns]
    }

    /// Whether Winograd's way is open.
    pub(crate) fn is_three_by_three(&self) -> bool {
        let Convolution { window, groups, .. } = self.convolution;
        window.kernel == [3, 3]
            && window.stride == [1, 1]
            && window.dilation == [1, 1]
            && groups == 1
            && !self.is_planar()
    }
}
