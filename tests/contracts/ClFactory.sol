// SPDX-License-Identifier: MIT
pragma solidity =0.7.6;
pragma abicoder v2;

import "@uniswap/v3-core/contracts/libraries/LiquidityMath.sol";
import "@uniswap/v3-core/contracts/libraries/SqrtPriceMath.sol";
import "@uniswap/v3-core/contracts/libraries/SwapMath.sol";
import "@uniswap/v3-core/contracts/libraries/TickBitmap.sol";
import "@uniswap/v3-core/contracts/libraries/TickMath.sol";

interface IToken {
    function transfer(address to, uint256 value) external returns (bool);
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}

interface IFees {
    function getSwapFee(address pool) external view returns (uint24);
    function getFee(address pool) external view returns (uint24);
}

/// Speaks as Slipstream's pools do (slot0 of six words, a tick's staked liquidity, a fee that the factory says), over
/// Uniswap V3's own libraries of ticks, steps and prices. What is earned is left out: no price depends on it.
contract ClPool {
    using TickBitmap for mapping(int16 => uint256);

    struct Slot0 {
        uint160 sqrtPriceX96;
        int24 tick;
        uint16 observationIndex;
        uint16 observationCardinality;
        uint16 observationCardinalityNext;
        bool unlocked;
    }

    struct TickInfo {
        uint128 gross;
        int128 net;
        int128 staked;
    }

    struct Walk {
        int256 left;
        int256 other;
        uint160 price;
        int24 tick;
        uint128 liquidity;
        uint160 limit;
        uint24 fee;
    }

    struct Step {
        uint160 start;
        int24 next;
        bool initialised;
        uint160 edge;
        uint256 taken;
        uint256 given;
        uint256 charged;
    }

    address public immutable factory;
    address public immutable token0;
    address public immutable token1;
    int24 public immutable tickSpacing;
    Slot0 public slot0;
    uint128 public liquidity;
    uint128 public stakedLiquidity;
    mapping(int16 => uint256) public tickBitmap;
    mapping(int24 => TickInfo) private info;

    event Initialize(uint160 sqrtPriceX96, int24 tick);
    event Mint(
        address sender, address indexed owner, int24 indexed low, int24 indexed high, uint128 amount, uint256 a0, uint256 a1
    );
    event Burn(address indexed owner, int24 indexed low, int24 indexed high, uint128 amount, uint256 a0, uint256 a1);
    event Collect(address indexed owner, address to, int24 indexed low, int24 indexed high, uint128 a0, uint128 a1);
    event Swap(
        address indexed sender, address indexed to, int256 a0, int256 a1, uint160 price, uint128 liquidity, int24 tick
    );

    constructor(address a, address b, int24 spacing) {
        factory = msg.sender;
        token0 = a;
        token1 = b;
        tickSpacing = spacing;
    }

    function initialize(uint160 price) external {
        require(slot0.sqrtPriceX96 == 0, "again");
        int24 tick = TickMath.getTickAtSqrtRatio(price);
        slot0 = Slot0(price, tick, 0, 1, 1, true);
        emit Initialize(price, tick);
    }

    function fee() public view returns (uint24) {
        return IFees(factory).getSwapFee(address(this));
    }

    function ticks(int24 tick)
        external
        view
        returns (uint128, int128, int128, uint256, uint256, uint256, int56, uint160, uint32, bool)
    {
        TickInfo memory t = info[tick];
        return (t.gross, t.net, t.staked, 1, 2, 3, 4, 5, 6, t.gross > 0);
    }

    function mint(int24 low, int24 high, uint128 amount) external {
        (uint256 a0, uint256 a1) = _position(low, high, int128(amount));
        if (a0 > 0) IToken(token0).transferFrom(msg.sender, address(this), a0);
        if (a1 > 0) IToken(token1).transferFrom(msg.sender, address(this), a1);
        emit Mint(msg.sender, msg.sender, low, high, amount, a0, a1);
    }

    function burn(int24 low, int24 high, uint128 amount) external {
        (uint256 a0, uint256 a1) = _position(low, high, -int128(amount));
        emit Burn(msg.sender, low, high, amount, a0, a1);
        emit Collect(msg.sender, msg.sender, low, high, uint128(a0), uint128(a1));
        if (a0 > 0) IToken(token0).transfer(msg.sender, a0);
        if (a1 > 0) IToken(token1).transfer(msg.sender, a1);
    }

    /// As a gauge stakes: no event of the pool, and no price that changes.
    function stake(int24 low, int24 high, int128 amount) external {
        info[low].staked += amount;
        info[high].staked -= amount;
    }

    function swap(bool down, int256 amount) external {
        Walk memory w = _walk(down, amount);
        (slot0.sqrtPriceX96, slot0.tick, liquidity) = (w.price, w.tick, w.liquidity);
        int256 done = amount - w.left;
        (int256 a0, int256 a1) = down == (amount > 0) ? (done, w.other) : (w.other, done);
        if (a0 > 0) IToken(token0).transferFrom(msg.sender, address(this), uint256(a0));
        if (a1 > 0) IToken(token1).transferFrom(msg.sender, address(this), uint256(a1));
        if (a0 < 0) IToken(token0).transfer(msg.sender, uint256(-a0));
        if (a1 < 0) IToken(token1).transfer(msg.sender, uint256(-a1));
        emit Swap(msg.sender, msg.sender, a0, a1, w.price, w.liquidity, w.tick);
    }

    /// What the other side would be, and what of the amount would be left over.
    function quote(bool down, int256 amount) external view returns (int256 other, int256 left) {
        Walk memory w = _walk(down, amount);
        return (w.other, w.left);
    }

    function _walk(bool down, int256 amount) private view returns (Walk memory w) {
        require(amount != 0, "nothing");
        w.left = amount;
        (w.price, w.tick, w.liquidity, w.fee) = (slot0.sqrtPriceX96, slot0.tick, liquidity, fee());
        w.limit = down ? TickMath.MIN_SQRT_RATIO + 1 : TickMath.MAX_SQRT_RATIO - 1;
        while (w.left != 0 && w.price != w.limit) {
            Step memory s;
            s.start = w.price;
            (s.next, s.initialised) = tickBitmap.nextInitializedTickWithinOneWord(w.tick, tickSpacing, down);
            if (s.next < TickMath.MIN_TICK) s.next = TickMath.MIN_TICK;
            if (s.next > TickMath.MAX_TICK) s.next = TickMath.MAX_TICK;
            s.edge = TickMath.getSqrtRatioAtTick(s.next);
            uint160 to = (down ? s.edge < w.limit : s.edge > w.limit) ? w.limit : s.edge;
            (w.price, s.taken, s.given, s.charged) = SwapMath.computeSwapStep(w.price, to, w.liquidity, w.left, w.fee);
            if (amount > 0) {
                w.left -= int256(s.taken + s.charged);
                w.other -= int256(s.given);
            } else {
                w.left += int256(s.given);
                w.other += int256(s.taken + s.charged);
            }
            if (w.price == s.edge) {
                if (s.initialised) {
                    int128 net = info[s.next].net;
                    w.liquidity = LiquidityMath.addDelta(w.liquidity, down ? -net : net);
                }
                w.tick = down ? s.next - 1 : s.next;
            } else if (w.price != s.start) {
                w.tick = TickMath.getTickAtSqrtRatio(w.price);
            }
        }
    }

    function _position(int24 low, int24 high, int128 delta) private returns (uint256 a0, uint256 a1) {
        require(low < high && low % tickSpacing == 0 && high % tickSpacing == 0, "ticks");
        _edge(low, delta, delta);
        _edge(high, delta, -delta);
        uint128 size = uint128(delta < 0 ? -delta : delta);
        uint160 lowPrice = TickMath.getSqrtRatioAtTick(low);
        uint160 highPrice = TickMath.getSqrtRatioAtTick(high);
        if (slot0.tick < low) {
            a0 = SqrtPriceMath.getAmount0Delta(lowPrice, highPrice, size, delta > 0);
        } else if (slot0.tick < high) {
            a0 = SqrtPriceMath.getAmount0Delta(slot0.sqrtPriceX96, highPrice, size, delta > 0);
            a1 = SqrtPriceMath.getAmount1Delta(lowPrice, slot0.sqrtPriceX96, size, delta > 0);
            liquidity = LiquidityMath.addDelta(liquidity, delta);
        } else {
            a1 = SqrtPriceMath.getAmount1Delta(lowPrice, highPrice, size, delta > 0);
        }
    }

    function _edge(int24 tick, int128 delta, int128 net) private {
        TickInfo storage t = info[tick];
        bool was = t.gross > 0;
        t.gross = LiquidityMath.addDelta(t.gross, delta);
        t.net += net;
        if (was != (t.gross > 0)) tickBitmap.flipTick(tick, tickSpacing);
        if (t.gross == 0) delete info[tick];
    }
}

/// Says fees by its owner's word, or, where it is told so, another one with each block.
contract FeeModule {
    mapping(address => uint24) private custom;
    bool private dynamic;

    function set(address pool, uint24 value) external {
        custom[pool] = value;
    }

    function wander(bool on) external {
        dynamic = on;
    }

    function getFee(address pool) external view returns (uint24) {
        return custom[pool] + (dynamic ? uint24(block.number % 5) * 100 : 0);
    }
}

contract ClFactory {
    mapping(address => mapping(address => mapping(int24 => address))) public getPool;
    mapping(int24 => uint24) public tickSpacingToFee;
    address public swapFeeModule;
    FeeModule public immutable module;

    event PoolCreated(address indexed token0, address indexed token1, int24 indexed tickSpacing, address pool);

    constructor() {
        tickSpacingToFee[1] = 100;
        tickSpacingToFee[100] = 500;
        tickSpacingToFee[200] = 3000;
        module = new FeeModule();
    }

    function createPool(address a, address b, int24 spacing, uint160 price) external {
        (address x, address y) = a < b ? (a, b) : (b, a);
        require(tickSpacingToFee[spacing] != 0 && getPool[x][y][spacing] == address(0), "no such");
        ClPool pool = new ClPool(x, y, spacing);
        pool.initialize(price);
        getPool[x][y][spacing] = getPool[y][x][spacing] = address(pool);
        emit PoolCreated(x, y, spacing, address(pool));
    }

    function setSwapFeeModule(address where) external {
        swapFeeModule = where;
    }

    function getSwapFee(address pool) external view returns (uint24) {
        if (swapFeeModule != address(0)) return IFees(swapFeeModule).getFee(pool);
        return tickSpacingToFee[ClPool(pool).tickSpacing()];
    }

    struct Question {
        address tokenIn;
        address tokenOut;
        uint256 amountIn;
        int24 tickSpacing;
        uint160 sqrtPriceLimitX96;
    }

    /// The quoter's question, answered here.
    function quoteExactInputSingle(Question calldata q) external view returns (uint256, uint160, uint32, uint256) {
        ClPool pool = ClPool(getPool[q.tokenIn][q.tokenOut][q.tickSpacing]);
        (int256 other,) = pool.quote(q.tokenIn < q.tokenOut, int256(q.amountIn));
        return (uint256(-other), 0, 0, 0);
    }
}
