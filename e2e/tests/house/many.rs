//! Many at once, and one that is large.

use adit_e2e::{House, Plan, Version};
use adit_vision::image::digit_picture;
use anyhow::Result;
use bytes::Bytes;

use crate::ask::{binary, largest, raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_over_eight_connections_each_get_their_own_answer() -> Result<()> {
    let house = House::builder().agent(Plan::new("box").digits()).open().await?;
    let digits: Vec<Bytes> = (0..10).map(|digit| Ok(digit_picture(digit)?.into())).collect::<Result<_>>()?;
    let mut asked = Vec::new();
    for connection in 0..8 {
        let mut client = house.client(Version::Http2).await?;
        for number in 0..25 {
            let digit = (connection + number) % 10;
            let mut request = binary("digits", digits[digit].clone())?;
            let id = format!("{connection}-{number}");
            request.headers_mut().insert("x-request-id", id.parse()?);
            let answer = client.send(request);
            asked.push(tokio::spawn(async move { (digit, id, answer.await) }));
        }
    }
    assert_eq!(asked.len(), 200);
    for asked in asked {
        let (digit, id, answer) = asked.await?;
        let answer = answer?;
        assert_eq!(largest(&answer.probabilities()?), digit, "{answer:?}");
        assert_eq!(answer.header("x-request-id")?, id);
    }
    assert!(house.close().await);
    Ok(())
}

/// A one in ink on paper as a BMP file, uncompressed: 54 bytes and 3 for each pixel.
fn large_one(side: usize) -> Vec<u8> {
    let size = 54 + side * side * 3;
    let mut file = b"BM".to_vec();
    for number in [size as u32, 0, 54, 40, side as u32, side as u32, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    for y in 0..side {
        for x in 0..side {
            // A stroke that leans a little, as a hand makes it. Rows of a BMP go upwards.
            let middle = side * 9 / 20 + y / 8;
            let ink = (side / 6..side * 5 / 6).contains(&y) && (middle..middle + side / 14).contains(&x);
            file.extend_from_slice(&[if ink { 20 } else { 235 }; 3]);
        }
    }
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_megabytes_arrive_whole() -> Result<()> {
    let house = House::builder().agent(Plan::new("box").digits()).open().await?;
    let file: Bytes = large_one(2600).into();
    assert!(file.len() > 20_000_000);
    for version in [Version::Http1, Version::Http2] {
        let answer = house.client(version).await?.ask(raw("digits", file.clone())).await?;
        assert_eq!(largest(&answer.probabilities()?), 1, "{version:?}: {answer:?}");
    }
    assert!(house.relay_metric("adit_relay_request_bytes_total").await? >= 2.0 * file.len() as f64);
    assert!(house.close().await);
    Ok(())
}
