//! Networks to measure and to test with: the layers of published ones, with weights of no meaning.

use adit_kernels::{
    Activation, Convolution, Graph, Grid, KernelError, Linear, Padding, Pool, Reduction, Shape, Value, Window,
};

/// So many weights as the largest layer needs; every layer takes its own from the beginning. So large that values neither vanish nor
/// explode on their way through a network.
pub(crate) fn weights() -> Vec<f32> {
    let number = |place: u32| (place.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5;
    (0..2048 * 4096).map(|place| number(place) * 0.2).collect()
}

type Built<'w> = Result<Graph<'w>, KernelError>;

struct Net<'w> {
    graph: Graph<'w>,
    weights: &'w [f32],
}

impl<'w> Net<'w> {
    fn new(weights: &'w [f32], side: usize) -> Result<Self, KernelError> {
        Ok(Self { graph: Graph::new(Shape::new(3, side, side))?, weights })
    }

    fn channels(&self, value: Value) -> usize {
        self.graph.shape(value).map_or(0, |shape| shape.channels)
    }

    /// A convolution with bias, and an activation.
    fn unit(
        &mut self,
        from: Value,
        outputs: usize,
        window: Window,
        groups: usize,
        activation: Activation,
    ) -> Result<Value, KernelError> {
        let count = outputs * self.channels(from) / groups * window.kernel[0] * window.kernel[1];
        let (weight, bias) = (&self.weights[..count], Some(&self.weights[..outputs]));
        let x = self.graph.convolution(from, Convolution { outputs, window, groups, weight, bias })?;
        if activation == Activation::Identity { Ok(x) } else { self.graph.activation(x, activation) }
    }

    fn relu(&mut self, from: Value, outputs: usize, kernel: usize, stride: usize) -> Result<Value, KernelError> {
        self.unit(from, outputs, Window::square(kernel, stride, kernel / 2), 1, Activation::Relu)
    }

    fn max_pool(
        &mut self,
        from: Value,
        kernel: usize,
        stride: usize,
        padding: usize,
        ceil: bool,
    ) -> Result<Value, KernelError> {
        let window = Window::square(kernel, stride, padding);
        self.graph.pool(from, Pool { reduction: Reduction::Max, window, ceil })
    }

    fn classes(mut self, from: Value) -> Built<'w> {
        let mean = self.graph.global_average_pool(from)?;
        let weight = &self.weights[..1000 * self.channels(mean)];
        self.graph.linear(mean, Linear { outputs: 1000, weight, bias: Some(&self.weights[..1000]) })?;
        Ok(self.graph)
    }
}

/// Szegedy et al., "Going Deeper with Convolutions" (2014), as in torchvision: kernels of 3 where the paper has 5.
pub(crate) fn googlenet(weights: &[f32], side: usize) -> Built<'_> {
    let mut net = Net::new(weights, side)?;
    let x = net.relu(net.graph.input(), 64, 7, 2)?;
    let x = net.max_pool(x, 3, 2, 0, true)?;
    let x = net.relu(x, 64, 1, 1)?;
    let x = net.relu(x, 192, 3, 1)?;
    let mut x = net.max_pool(x, 3, 2, 0, true)?;
    let table = [
        [64, 96, 128, 16, 32, 32],
        [128, 128, 192, 32, 96, 64],
        [192, 96, 208, 16, 48, 64],
        [160, 112, 224, 24, 64, 64],
        [128, 128, 256, 24, 64, 64],
        [112, 144, 288, 32, 64, 64],
        [256, 160, 320, 32, 128, 128],
        [256, 160, 320, 32, 128, 128],
        [384, 192, 384, 48, 128, 128],
    ];
    for (place, [one, reduce, three, narrow, wide, pool]) in table.into_iter().enumerate() {
        if place == 2 {
            x = net.max_pool(x, 3, 2, 0, true)?;
        } else if place == 7 {
            x = net.max_pool(x, 2, 2, 0, true)?;
        }
        let first = net.relu(x, one, 1, 1)?;
        let second = net.relu(x, reduce, 1, 1)?;
        let second = net.relu(second, three, 3, 1)?;
        let third = net.relu(x, narrow, 1, 1)?;
        let third = net.relu(third, wide, 3, 1)?;
        let fourth = net.max_pool(x, 3, 1, 1, true)?;
        let fourth = net.relu(fourth, pool, 1, 1)?;
        x = net.graph.concat(&[first, second, third, fourth])?;
    }
    net.classes(x)
}

/// He et al., "Deep Residual Learning for Image Recognition" (2015), with the stride at the 3 x 3, as in torchvision.
pub(crate) fn resnet50(weights: &[f32], side: usize) -> Built<'_> {
    let mut net = Net::new(weights, side)?;
    let x = net.relu(net.graph.input(), 64, 7, 2)?;
    let mut x = net.max_pool(x, 3, 2, 1, false)?;
    for (width, repetitions, stride) in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)] {
        for repetition in 0..repetitions {
            let stride = if repetition == 0 { stride } else { 1 };
            let point = |stride| Window::square(1, stride, 0);
            let y = net.relu(x, width, 1, 1)?;
            let y = net.relu(y, width, 3, stride)?;
            let y = net.unit(y, 4 * width, point(1), 1, Activation::Identity)?;
            let around =
                if repetition == 0 { net.unit(x, 4 * width, point(stride), 1, Activation::Identity)? } else { x };
            let sum = net.graph.add(y, around)?;
            x = net.graph.activation(sum, Activation::Relu)?;
        }
    }
    net.classes(x)
}

/// Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016), release 1.1, as in torchvision: its classes
/// are the mean of a convolution.
pub(crate) fn squeezenet(weights: &[f32], side: usize) -> Built<'_> {
    let mut net = Net::new(weights, side)?;
    let mut x = net.unit(net.graph.input(), 64, Window::square(3, 2, 0), 1, Activation::Relu)?;
    let table = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)];
    for (place, (squeeze, expand)) in table.into_iter().enumerate() {
        if [0, 2, 4].contains(&place) {
            x = net.max_pool(x, 3, 2, 0, true)?;
        }
        let squeezed = net.relu(x, squeeze, 1, 1)?;
        let narrow = net.relu(squeezed, expand, 1, 1)?;
        let wide = net.relu(squeezed, expand, 3, 1)?;
        x = net.graph.concat(&[narrow, wide])?;
    }
    let x = net.relu(x, 1000, 1, 1)?;
    net.graph.global_average_pool(x)?;
    Ok(net.graph)
}

/// Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), as in torchvision.
pub(crate) fn mobilenet_v2(weights: &[f32], side: usize) -> Built<'_> {
    let mut net = Net::new(weights, side)?;
    let mut x = net.unit(net.graph.input(), 32, Window::square(3, 2, 1), 1, Activation::Relu6)?;
    let table =
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
    let point = Window::square(1, 1, 0);
    for (expansion, outputs, repetitions, stride) in table {
        for repetition in 0..repetitions {
            let stride = if repetition == 0 { stride } else { 1 };
            let wide = expansion * net.channels(x);
            let y = if expansion > 1 { net.unit(x, wide, point, 1, Activation::Relu6)? } else { x };
            let y = net.unit(y, wide, Window::square(3, stride, 1), wide, Activation::Relu6)?;
            let y = net.unit(y, outputs, point, 1, Activation::Identity)?;
            x = if stride == 1 && net.channels(x) == outputs { net.graph.add(x, y)? } else { y };
        }
    }
    let x = net.unit(x, 1280, point, 1, Activation::Relu6)?;
    net.classes(x)
}

/// Single layers that networks spend their time in, with what stands before them taken away; in f32, or from bytes to bytes.
pub(crate) fn layers(weights: &[f32], bytes: bool) -> Result<Vec<(String, Graph<'_>)>, KernelError> {
    let three = |stride| Window::square(3, stride, 1);
    let point = Window::square(1, 1, 0);
    let table = [
        (3, 224, 64, Window::square(7, 2, 3), 1),
        (64, 56, 64, three(1), 1),
        (128, 28, 128, three(1), 1),
        (256, 14, 256, three(1), 1),
        (512, 7, 512, three(1), 1),
        (128, 56, 128, three(2), 1),
        (256, 56, 64, point, 1),
        (1024, 14, 256, point, 1),
        (2048, 7, 512, point, 1),
        (24, 56, 144, point, 1),
        (96, 112, 96, three(2), 96),
        (144, 56, 144, three(1), 144),
        (576, 14, 576, three(1), 576),
        (960, 7, 960, three(1), 960),
        (128, 17, 128, Window { kernel: [1, 7], padding: Padding { left: 3, right: 3, ..Padding::NONE }, ..point }, 1),
    ];
    let layer = |(inputs, side, outputs, window, groups): (usize, usize, usize, Window, usize)| {
        let mut graph = Graph::new(Shape::new(inputs, side, side))?;
        let count = outputs * inputs / groups * window.kernel[0] * window.kernel[1];
        let (weight, bias) = (&weights[..count], Some(&weights[..outputs]));
        let grid = Grid::of_range(0.0, 1.0).filter(|_| bytes);
        let x = grid.map_or(Ok(graph.input()), |grid| graph.quantise(graph.input(), grid))?;
        let x = graph.convolution(x, Convolution { outputs, window, groups, weight, bias })?;
        let mut x = graph.activation(x, Activation::Relu)?;
        if let Some(grid) = grid {
            let bytes = graph.quantise(x, grid)?;
            x = graph.restore(bytes)?;
        }
        // So that carrying the result out takes no time.
        graph.global_average_pool(x)?;
        let [height, width] = window.kernel;
        let kind = if groups > 1 { " depthwise" } else { "" };
        let kind = if bytes { format!("{kind} in bytes") } else { kind.to_owned() };
        Ok((format!("{height}x{width}/{} {inputs}-{outputs} at {side}{kind}", window.stride[0]), graph))
    };
    table.into_iter().map(layer).collect()
}
