//! Inception V3: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015), as torchvision has it. Tensor names
//! as there; the auxiliary classifier is for training alone.
//!
//! The picture has a mean and a deviation of 0.5, as for torchvision's GoogLeNet.

use candle_core::Device;

use crate::builder::GraphBuilder;
use crate::error::VisionError;
use crate::graph::{Graph, Value};
use crate::layers::{Form, Padding, Window};
use crate::shape::ImageShape;
use crate::weights::Weights;

/// torchvision changes PyTorch's epsilon.
const EPSILON: f64 = 1e-3;

pub(crate) fn graph(weights: &Weights, device: &Device) -> Result<Graph, VisionError> {
    let mut net = Builder { net: GraphBuilder::new(weights, device, ImageShape::new(3, 299, 299)) };
    let input = net.net.input();
    let x = net.unit("Conv2d_1a_3x3", input, 32, HALVE)?;
    let x = net.unit("Conv2d_2a_3x3", x, 32, VALID)?;
    let x = net.unit("Conv2d_2b_3x3", x, 64, same(3, 3))?;
    let x = net.net.max_pool("maxpool1", x, HALVE)?;
    let x = net.unit("Conv2d_3b_1x1", x, 80, same(1, 1))?;
    let x = net.unit("Conv2d_4a_3x3", x, 192, VALID)?;
    let mut x = net.net.max_pool("maxpool2", x, HALVE)?;
    for (name, pooled) in [("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)] {
        x = net.square(name, x, pooled)?;
    }
    x = net.square_reduction("Mixed_6a", x)?;
    for (name, channels) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
        x = net.factored(name, x, channels)?;
    }
    x = net.factored_reduction("Mixed_7a", x)?;
    for name in ["Mixed_7b", "Mixed_7c"] {
        x = net.wide(name, x)?;
    }
    let mut net = net.net;
    let x = net.global_average_pool("avgpool", x);
    let classes = net.classes("fc", 1000);
    net.linear("fc", x, classes)?;
    net.finish()
}

/// A 3 x 3 window that keeps to the inside.
const VALID: Window = Window { kernel: [3, 3], stride: 1, padding: Padding::NONE };
const HALVE: Window = Window { stride: 2, ..VALID };

/// A window with so many rows and columns that keeps the size.
const fn same(rows: usize, columns: usize) -> Window {
    let padding = Padding { top: rows / 2, bottom: rows / 2, left: columns / 2, right: columns / 2 };
    Window { kernel: [rows, columns], stride: 1, padding }
}

struct Builder<'a> {
    net: GraphBuilder<'a>,
}

impl Builder<'_> {
    /// A convolution, its norm and its rectifier.
    fn unit(&mut self, name: &str, from: Value, outputs: usize, window: Window) -> Result<Value, VisionError> {
        let form = Form::new(outputs, window);
        let x = self.net.normalised(&format!("{name}.conv"), &format!("{name}.bn"), from, form, EPSILON)?;
        Ok(self.net.relu(x))
    }

    /// Units one after another, each with the last part of its name, its channels and its window.
    fn chain(&mut self, name: &str, from: Value, units: &[(&str, usize, Window)]) -> Result<Value, VisionError> {
        units
            .iter()
            .try_fold(from, |x, (part, outputs, window)| self.unit(&format!("{name}.{part}"), x, *outputs, *window))
    }

    /// A mean over 3 x 3, and a 1 x 1.
    fn pooled(&mut self, name: &str, from: Value, outputs: usize) -> Result<Value, VisionError> {
        let x = self.net.average_pool(&format!("{name}.pool"), from, same(3, 3))?;
        self.unit(&format!("{name}.branch_pool"), x, outputs, same(1, 1))
    }

    /// Figure 5: two 3 x 3 beside a 5 x 5.
    fn square(&mut self, name: &str, from: Value, pooled: usize) -> Result<Value, VisionError> {
        let one = self.unit(&format!("{name}.branch1x1"), from, 64, same(1, 1))?;
        let five = [("branch5x5_1", 48, same(1, 1)), ("branch5x5_2", 64, same(5, 5))];
        let five = self.chain(name, from, &five)?;
        let double = [
            ("branch3x3dbl_1", 64, same(1, 1)),
            ("branch3x3dbl_2", 96, same(3, 3)),
            ("branch3x3dbl_3", 96, same(3, 3)),
        ];
        let double = self.chain(name, from, &double)?;
        let pooled = self.pooled(name, from, pooled)?;
        self.net.concat(name, &[one, five, double, pooled])
    }

    /// Figure 10: half as many rows and columns.
    fn square_reduction(&mut self, name: &str, from: Value) -> Result<Value, VisionError> {
        let three = self.unit(&format!("{name}.branch3x3"), from, 384, HALVE)?;
        let double =
            [("branch3x3dbl_1", 64, same(1, 1)), ("branch3x3dbl_2", 96, same(3, 3)), ("branch3x3dbl_3", 96, HALVE)];
        let double = self.chain(name, from, &double)?;
        let pooled = self.net.max_pool(&format!("{name}.pool"), from, HALVE)?;
        self.net.concat(name, &[three, double, pooled])
    }

    /// Figure 6: 7 x 7 as 1 x 7 and 7 x 1.
    fn factored(&mut self, name: &str, from: Value, channels: usize) -> Result<Value, VisionError> {
        let one = self.unit(&format!("{name}.branch1x1"), from, 192, same(1, 1))?;
        let seven = [
            ("branch7x7_1", channels, same(1, 1)),
            ("branch7x7_2", channels, same(1, 7)),
            ("branch7x7_3", 192, same(7, 1)),
        ];
        let seven = self.chain(name, from, &seven)?;
        let double = [
            ("branch7x7dbl_1", channels, same(1, 1)),
            ("branch7x7dbl_2", channels, same(7, 1)),
            ("branch7x7dbl_3", channels, same(1, 7)),
            ("branch7x7dbl_4", channels, same(7, 1)),
            ("branch7x7dbl_5", 192, same(1, 7)),
        ];
        let double = self.chain(name, from, &double)?;
        let pooled = self.pooled(name, from, 192)?;
        self.net.concat(name, &[one, seven, double, pooled])
    }

    /// Half as many rows and columns again.
    fn factored_reduction(&mut self, name: &str, from: Value) -> Result<Value, VisionError> {
        let three = [("branch3x3_1", 192, same(1, 1)), ("branch3x3_2", 320, HALVE)];
        let three = self.chain(name, from, &three)?;
        let seven = [
            ("branch7x7x3_1", 192, same(1, 1)),
            ("branch7x7x3_2", 192, same(1, 7)),
            ("branch7x7x3_3", 192, same(7, 1)),
            ("branch7x7x3_4", 192, HALVE),
        ];
        let seven = self.chain(name, from, &seven)?;
        let pooled = self.net.max_pool(&format!("{name}.pool"), from, HALVE)?;
        self.net.concat(name, &[three, seven, pooled])
    }

    /// Figure 7: 1 x 3 and 3 x 1 beside each other.
    fn wide(&mut self, name: &str, from: Value) -> Result<Value, VisionError> {
        let one = self.unit(&format!("{name}.branch1x1"), from, 320, same(1, 1))?;
        let three = self.unit(&format!("{name}.branch3x3_1"), from, 384, same(1, 1))?;
        let three_a = self.unit(&format!("{name}.branch3x3_2a"), three, 384, same(1, 3))?;
        let three_b = self.unit(&format!("{name}.branch3x3_2b"), three, 384, same(3, 1))?;
        let double = [("branch3x3dbl_1", 448, same(1, 1)), ("branch3x3dbl_2", 384, same(3, 3))];
        let double = self.chain(name, from, &double)?;
        let double_a = self.unit(&format!("{name}.branch3x3dbl_3a"), double, 384, same(1, 3))?;
        let double_b = self.unit(&format!("{name}.branch3x3dbl_3b"), double, 384, same(3, 1))?;
        let pooled = self.pooled(name, from, 192)?;
        self.net.concat(name, &[one, three_a, three_b, double_a, double_b, pooled])
    }
}
