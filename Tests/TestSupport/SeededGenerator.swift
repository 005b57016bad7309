/// Random numbers that are the same in every run with the same seed (SplitMix64, Steele, Lea and Flood 2014).
public struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64
    private static let block = 256 << 10

    public init(_ seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }

    public mutating func below(_ end: Int) -> Int { Int.random(in: 0..<end, using: &self) }

    /// True once in so many times.
    public mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }

    /// Half of it is noise, half repeats, so that a compressor has some work and some gain.
    public mutating func bytes(_ count: Int) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(count + 8)
        let word = next()
        while result.count < count {
            // Of large ones only the first bytes are new: this is quick, and still no two places are the same.
            if result.count == Self.block {
                let first = result
                while result.count < count {
                    withUnsafeBytes(of: next()) { result += $0 }
                    result += first.dropFirst(8)
                }
                break
            }
            let piece = result.count & 64 == 0 ? next() : word
            withUnsafeBytes(of: piece) { result += $0 }
        }
        result.removeLast(result.count - count)
        return result
    }
}
